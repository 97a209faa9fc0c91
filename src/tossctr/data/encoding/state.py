"""The parameters of a fit encoder, as `encoder.json` stores them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from tossctr.config.schema import LabelSpec
from tossctr.data.encoding.fields import FieldEncoding
from tossctr.data.encoding.numbers import signed_log
from tossctr.data.encoding.quantiles import Quantiles


class Scaler(BaseModel):
    """x -> (x - shift) * scale, in float64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shift: float
    scale: float


class EncoderState(BaseModel):
    """The content of `encoder.json`.

    Attributes:
        na_values: texts that mean a missing value.
        vocabularies: tokens from index 1 on, by owner.
        index_sizes: vocabulary sizes of `remap: false`, by owner.
        scalers, quantiles: by owner.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tossctr-encoder"] = "tossctr-encoder"
    version: Literal[3] = 3
    dataset_id: str
    label: LabelSpec
    na_values: tuple[str, ...]
    columns: tuple[FieldEncoding, ...]
    vocabularies: dict[str, tuple[str, ...]]
    index_sizes: dict[str, int]
    scalers: dict[str, Scaler]
    quantiles: dict[str, Quantiles]

    def shift_and_scale(self, column: FieldEncoding) -> tuple[float, float]:
        """(shift, scale) of a numeric column: x -> (x - shift) * scale."""
        scaler = self.scalers.get(column.owner)
        return (scaler.shift, scaler.scale) if scaler else (0.0, 1.0)

    def encoded_fill(self, column: FieldEncoding) -> float:
        """The normalized and scaled value that replaces a missing number."""
        fill = np.array(column.fill_number)
        if column.normalizer == "quantile":
            fill = self.quantiles[column.owner](fill)
        elif column.normalizer == "signed_log":
            fill = signed_log(fill)
        shift, scale = self.shift_and_scale(column)
        return (float(fill) - shift) * scale

    def missing(self, column: FieldEncoding) -> float | None:
        """The encoded value that networks use for a missing number; None if none stays missing."""
        return float(np.float32(self.encoded_fill(column))) if column.keeps_missing else None

    @model_validator(mode="after")
    def _complete(self) -> EncoderState:
        for column in self.columns:
            if column.has_vocabulary:
                known: Any = self.vocabularies if column.remap else self.index_sizes
                if column.owner not in known:
                    raise ValueError(f"no vocabulary for column {column.name!r}")
            elif isinstance(column.fill, str):
                raise ValueError(f"column {column.name!r} has a fill that is not a number")
            elif column.normalizer == "quantile":
                if column.owner not in self.quantiles:
                    raise ValueError(f"no quantiles for column {column.name!r}")
            elif column.normalizer is not None and column.owner not in self.scalers:
                raise ValueError(f"no scaler for column {column.name!r}")
        for name, tokens in self.vocabularies.items():
            if len(set(tokens)) != len(tokens):
                raise ValueError(f"the vocabulary of {name!r} repeats a token")
        if any(not 2 <= size <= 2**32 for size in self.index_sizes.values()):
            raise ValueError("an index size is not from 2 to 2^32")
        return self
