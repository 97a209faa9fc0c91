"""`prepare.json` and `fit.json`: what a data set was prepared from, and what was found in it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from tossctr.artefact import Artefact, Sha256
from tossctr.config.schema import DatasetConfig
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.verification import Stamps

FILE = "prepare.json"
VERSION = 5
# Keys of a feature that only training or scoring uses: changing them keeps the stores.
_UNUSED = {"max_len", "truncating", "feature_encoder", "embedding_dim", "source", "active"}
_USED = {
    "dataset_id", "max_rows", "min_categr_count", "valid_split", "label_col", "na_values",
    "drop_redundant", "vocabulary",
}  # fmt: skip

Input = dict[str, int | str]  # one split's entry of `Inputs.as_dict`


class FitRecord(Artefact):
    """`fit.json`: the hash of the config, and the raw files."""

    version: Literal[5]
    config: Sha256
    inputs: dict[str, Input]
    group: str | None  # the categorical feature whose raw values are stored too

    @model_validator(mode="after")
    def _complete(self) -> FitRecord:
        for described in self.inputs.values():
            if not {"path", "size", "sha256"} <= described.keys():
                raise ValueError("an input without path, size and sha256")
        return self

    def matches(self, dataset: DatasetConfig, inputs: Inputs) -> bool:
        """Whether preparing this data set from these files would give the same result. Stored raw
        values of a group do no harm to experiments without one."""
        same_group = _group(dataset) in (None, self.group)
        return self.config == _config_hash(dataset) and same_group and inputs.same_as(self.inputs)


class ReportRecord(Artefact):
    """`EncodingReport` as JSON."""

    rows: int = Field(ge=0)
    values: dict[str, int]
    unseen: dict[str, int]
    missing: dict[str, int]
    null_events: dict[str, int]


class Reports(Artefact):
    """By split."""

    train: ReportRecord
    valid: ReportRecord


class PrepareRecord(FitRecord):
    """`prepare.json`.

    Attributes:
        encoder: hash of the encoder.
        report: unseen and missing values by split.
        stores: sizes and times of the stores' files when they were last verified, by split.
        seconds, peak_mb: what preparing took.
    """

    encoder: Sha256
    report: Reports
    stores: dict[str, Stamps]
    seconds: float
    peak_mb: float

    @model_validator(mode="after")
    def _both_splits(self) -> PrepareRecord:
        if self.stores.keys() != {"train", "valid"}:
            raise ValueError("stores are not train and valid")
        return self


def made_from(dataset: DatasetConfig, inputs: Inputs) -> dict[str, Any]:
    """The content of `FitRecord`."""
    return {
        "version": VERSION,
        "config": _config_hash(dataset),
        "inputs": inputs.as_dict(),
        "group": _group(dataset),
    }


def _group(dataset: DatasetConfig) -> str | None:
    return next((field.name for field in field_encodings(dataset) if field.grouped), None)


def _config_hash(dataset: DatasetConfig) -> str:
    """Hash of the keys that the stores depend on."""
    config: dict[str, Any] = {
        "version": VERSION,
        "features": [f.model_dump(mode="json", exclude=_UNUSED) for f in dataset.features],
        **dataset.model_dump(mode="json", include=_USED),
    }
    if dataset.valid_data is not None:
        config["valid_split"] = "a file"
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
