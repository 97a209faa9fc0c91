"""What `prepare.json` and `fit.json` hold: what stores were made from, and what was met."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tossctr.artefact import Artefact, Sha256
from tossctr.data.verification import Stamps

VERSION = 5

Input = dict[str, int | str]  # `Inputs.as_dict` of one part


class FitRecord(Artefact):
    """`fit.json`: hash of the config, and the raw files."""

    version: Literal[5]
    config: Sha256
    inputs: dict[str, Input]
    group: str | None  # the category whose raw values are kept

    @model_validator(mode="after")
    def _whole(self) -> FitRecord:
        for described in self.inputs.values():
            if not {"path", "size", "sha256"} <= described.keys():
                raise ValueError("an input without path, size and sha256")
        return self


class ReportRecord(Artefact):
    """`EncodingReport` as JSON."""

    rows: int = Field(ge=0)
    values: dict[str, int]
    unseen: dict[str, int]
    missing: dict[str, int]
    null_events: dict[str, int]


class Reports(Artefact):
    """By part."""

    train: ReportRecord
    valid: ReportRecord


class PrepareRecord(FitRecord):
    """`prepare.json`: also the encoder's hash, what was met in the rows, the stamps of the stores'
    files when they were last known to be whole, and what it cost."""

    encoder: Sha256
    report: Reports
    stores: dict[str, Stamps]
    seconds: float
    peak_mb: float

    @model_validator(mode="after")
    def _of_both(self) -> PrepareRecord:
        if self.stores.keys() != {"train", "valid"}:
            raise ValueError("stores are not train and valid")
        return self
