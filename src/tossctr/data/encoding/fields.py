"""How each raw column is encoded, from the features of the config checked against each other."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tossctr.config.schema import DatasetConfig, Dtype, FeatureConfig, Normalizer
from tossctr.data.encoding.ids import id_text, typed_text
from tossctr.data.encoding.numbers import FLOAT32_MAX
from tossctr.data.features import Field, FieldType
from tossctr.errors import UserError


class FieldEncoding(BaseModel):
    """How one raw column becomes a `Field`, as `encoder.json` stores it.

    Attributes:
        owner: whose vocabulary or scaler is used: itself, or what `share_embedding` names.
        remap: False: values are indices already.
        keep_nulls: a null event of a sequence becomes OOV instead of being dropped, as other
            sequences hold values of the same events.
        fill: replaces a missing value; None: OOV for a category, 0 for a number.
        grouped: the raw values of a category are stored too, as `group_id` names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: FieldType
    dtype: Dtype
    owner: str
    remap: bool = True
    vocab_size: int | None = None
    share_embedding: str | None = None
    splitter: str = ","
    keep_nulls: bool = False
    fill: str | float | None = None
    normalizer: Normalizer | None = None
    grouped: bool = False

    @property
    def has_vocabulary(self) -> bool:
        return self.type in ("categorical", "sequence")

    @property
    def id_dtype(self) -> Literal["str", "int"]:
        """The type of a sequence's ids."""
        return "int" if self.dtype == "int" else "str"

    @property
    def fill_number(self) -> float:
        return float(self.fill or 0.0)

    @property
    def read_as(self) -> Dtype:
        """The type to read the column as from CSV. A category is always text, so that an id is the
        same in every format."""
        return "float" if self.type in ("numeric", "time") else "str"

    @property
    def keeps_missing(self) -> bool:
        """Whether a missing number stays NaN, which trees treat as a value."""
        return self.type == "numeric" and self.fill is None

    def field(self, vocab_size: int | None, missing: float | None = None) -> Field:
        return Field(
            name=self.name,
            type=self.type,
            vocab_size=vocab_size,
            share_embedding=self.share_embedding,
            missing=missing,
            grouped=self.grouped,
        )


def field_encodings(dataset: DatasetConfig) -> tuple[FieldEncoding, ...]:
    """The encodings of a data set's active features, in order; `read_dataset` has checked names
    and `share_embedding`.

    Raises:
        UserError: no features, or options that contradict each other.
    """
    specs = {spec.name: spec for spec in dataset.features}
    if not specs:
        raise UserError(f"data set {dataset.dataset_id!r} has no active features")
    several = sum(spec.is_sequence for spec in specs.values()) > 1
    return tuple(_column(spec, specs, several, dataset.group_id) for spec in specs.values())


def _column(
    spec: FeatureConfig, specs: dict[str, FeatureConfig], keep_nulls: bool, group_id: str | None
) -> FieldEncoding:
    field_type = _field_type(spec)
    has_vocabulary = field_type in ("categorical", "sequence")
    if field_type == "meta" and spec.dtype == "float":
        raise _wrong(spec, "type: meta needs dtype: int or str")
    if field_type in ("numeric", "time") and spec.dtype == "str":
        raise _wrong(spec, f"type: {field_type} needs dtype: float or int")
    if has_vocabulary and not spec.remap and spec.dtype != "int":
        raise _wrong(spec, "remap: false needs dtype: int")
    if spec.vocab_size is not None and (spec.remap or not has_vocabulary):
        raise _wrong(spec, "vocab_size is for categories with remap: false")
    if spec.normalizer is not None and field_type not in ("numeric", "numeric_sequence"):
        raise _wrong(spec, f"normalizer does not apply to type: {spec.type}")
    if spec.normalizer == "quantile" and field_type != "numeric":
        raise _wrong(spec, "normalizer: quantile is for single numbers")
    fill: str | float | None = None
    if field_type == "categorical" and spec.fill_na not in (None, ""):
        fill = _fill(spec)
    elif field_type == "sequence" and spec.fill_na not in (None, ""):
        raise _wrong(spec, "fill_na does not apply to a sequence of ids: a missing one is empty")
    elif not has_vocabulary and spec.fill_na not in (None, ""):
        try:
            fill = float(str(spec.fill_na))
        except ValueError:
            raise _wrong(spec, f"fill_na {spec.fill_na!r} is not a number") from None
        if not abs(fill) <= FLOAT32_MAX:
            raise _wrong(spec, f"fill_na {spec.fill_na!r} is not a number that float32 can hold")
    owner = _owner(spec, specs)
    return FieldEncoding(
        name=spec.name,
        type=field_type,
        dtype=spec.dtype,
        owner=owner.name,
        remap=spec.remap,
        vocab_size=owner.vocab_size,
        share_embedding=spec.share_embedding,
        splitter=spec.splitter or ",",
        keep_nulls=keep_nulls and field_type == "sequence",
        fill=fill,
        normalizer=owner.normalizer,
        grouped=field_type == "categorical" and spec.name == group_id,
    )


def _fill(spec: FeatureConfig) -> str:
    """`fill_na` of a category in the form of its column's ids: 0.0 is '0'."""
    text = id_text(spec.fill_na, ())
    try:
        return typed_text(text, spec.dtype)
    except (ValueError, OverflowError):
        return text  # a name in a column of numbers


def _field_type(spec: FeatureConfig) -> FieldType:
    match spec.type:
        case "sequence":
            return "numeric_sequence" if spec.dtype == "float" else "sequence"
        case "time":
            return "time_sequence" if spec.splitter is not None else "time"
        case other:
            return other


def _owner(spec: FeatureConfig, specs: dict[str, FeatureConfig]) -> FeatureConfig:
    """The feature whose vocabulary or scaler this one uses."""
    owner = spec if spec.share_embedding is None else specs[spec.share_embedding]
    groups = (("categorical", "sequence"), ("numeric", "numeric_sequence"))
    if owner is not spec and not any(
        {_field_type(spec), _field_type(owner)} <= set(types) for types in groups
    ):
        raise _wrong(
            spec, f"type: {spec.type} cannot share with {owner.name} of type: {owner.type}"
        )
    if owner.remap != spec.remap:
        raise _wrong(spec, f"remap must be the same as that of {owner.name}, which it shares with")
    return owner


def _wrong(spec: FeatureConfig, problem: str) -> UserError:
    return UserError(f"feature {spec.name!r}: {problem}")
