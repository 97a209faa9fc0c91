"""The encoded fields and their sizes, which is what a model needs of the encoder."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tossctr.config.schema import DatasetConfig

FieldType = Literal[
    "categorical", "numeric", "sequence", "numeric_sequence", "time", "time_sequence", "meta"
]


class Field(BaseModel):
    """One encoded column.

    `vocab_size` counts PAD (index 0) and OOV (the last index); it is None for types without a
    vocabulary. From `embedding_dim` on they are choices of training, not of preparing: the encoder
    leaves them alone and `FeatureMap.with_lengths` sets them. `missing` is what networks take a
    missing number for, after scaling; without it (`fill_na` is given, other types) none is missing.
    `grouped`: a category whose raw values are kept too, as those of a `meta` field are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: FieldType
    vocab_size: int | None = None
    share_embedding: str | None = None
    embedding_dim: int | None = None
    feature_encoder: str | None = None
    missing: float | None = None
    grouped: bool = False
    max_len: int | None = None
    truncating: Literal["pre", "post"] = "pre"

    @property
    def num_ids(self) -> int:
        """`vocab_size`.

        Raises:
            ValueError: the field has no vocabulary.
        """
        if self.vocab_size is None:
            raise ValueError(f"{self.name} has no vocabulary")
        return self.vocab_size


class FeatureMap(BaseModel):
    """The fields in declaration order. A `Batch` holds its columns in this order, type by type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_id: str
    label: str
    fields: tuple[Field, ...]

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)

    def with_lengths(self, dataset: DatasetConfig, max_len: int | None = None) -> FeatureMap:
        """The same fields with what the data set chooses for training: `max_len` and `truncating`,
        `embedding_dim` and `feature_encoder`. An experiment's `max_len`, where given, overrides the
        data set's for every sequence."""
        specs = {spec.name: spec for spec in dataset.features}

        def bound(field: Field) -> Field:
            spec = specs[field.name]
            chosen: dict[str, object] = {
                "embedding_dim": spec.embedding_dim,
                "feature_encoder": spec.feature_encoder,
            }
            if spec.is_sequence:
                chosen |= {"max_len": max_len or spec.max_len, "truncating": spec.truncating}
            return field.model_copy(update=chosen)

        return self.model_copy(update={"fields": tuple(map(bound, self.fields))})

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the columns of `EncodedRows.meta`: `meta` fields, then `grouped` ones."""
        return (*self.names("meta"), *(f.name for f in self.fields if f.grouped))

    def names(self, *types: FieldType) -> tuple[str, ...]:
        """Names of the fields of these types, in order: `names("categorical")` are the columns
        of `Batch.categorical`, `names("numeric")` those of `Batch.numeric`."""
        return tuple(f.name for f in self.fields if f.type in types)
