"""Decode labels, meta columns and number sequences to NumPy arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoding.fields import FieldEncoding
from tossctr.data.encoding.ids import categories, dictionary_of
from tossctr.data.encoding.lists import as_text, flat_list, is_list, split_text
from tossctr.data.encoding.numbers import as_floats
from tossctr.data.encoding.vocabulary import is_int64
from tossctr.data.where import Where
from tossctr.metrics.grouped import NO_GROUP

Array = NDArray[Any]


def labels(batch: pa.RecordBatch, name: str, where: Where) -> NDArray[np.float32]:
    """The label column as (B,) float32 of 0 and 1, from numbers, Booleans or text.

    Raises:
        UserError: no such column, or a value that is missing or neither 0 nor 1.
    """
    if name not in batch.schema.names:
        raise where.error("there is no label column", name, None, None, "check label_col")
    array = batch.column(name)
    if pa.types.is_nested(array.type):
        raise where.error(
            f"the label column holds {array.type}", name, None, None, "write one 0 or 1 a row"
        )
    values = (
        _texts_as_labels(array, name, where)
        if _is_text(array.type)
        else as_floats(array, name, where)
    )
    bad = ~((values == 0) | (values == 1))
    if bad.any():
        at = int(bad.argmax())
        found = array[at].as_py()
        missing = found is None or found == "" or found != found
        problem = "the label is missing" if missing else "the label is not 0 or 1"
        raise where.error(problem, name, at, found, "correct or drop the row")
    return values.astype(np.float32)


def _is_text(dtype: pa.DataType) -> bool:
    dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _texts_as_labels(array: pa.Array, name: str, where: Where) -> Array:
    """0 and 1; NaN for any other text."""
    codes, texts = dictionary_of(array, (), name, where)
    return np.array([*map(_as_label, texts), np.nan])[codes]


def _as_label(text: str) -> float:
    known = {"true": 1.0, "false": 0.0}.get(text.strip().lower())
    if known is not None:
        return known
    try:
        return float(text)
    except ValueError:
        return np.nan


def meta(
    array: pa.Array, column: FieldEncoding, na: Collection[str], where: Where
) -> NDArray[np.int64]:
    """Group ids as (B,) int64: with `dtype: int` an int64 is kept, any other id is the first 8
    bytes of its text's BLAKE2b hash; a missing value is `NO_GROUP`."""
    codes, texts = categories(array, column.dtype, na, column.name, where)

    def number(text: str) -> int:
        itself = column.dtype == "int" and is_int64(text) and int(text) != NO_GROUP
        return int(text) if itself else text_hash(text)

    return np.array([*map(number, texts), NO_GROUP], np.int64)[codes]


def text_hash(text: str) -> int:
    """The first 8 bytes of a text's BLAKE2b hash."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def flat_numbers(
    array: pa.Array, column: FieldEncoding, na: Collection[str], where: Where
) -> tuple[Array, Array]:
    """Number sequences as values (M,) float, NaN if missing, and offsets (N + 1,).

    Raises:
        UserError: a value that is not a number.
    """
    if is_list(array):
        offsets, flat = flat_list(array)
        if not _is_text(flat.type):
            return as_floats(flat, column.name, where, na), offsets
        flat = flat.cast(pa.large_string())
    else:
        if pa.types.is_floating(array.type):  # one number a row
            array = array.cast(pa.string())
        text = as_text(array, column.name, where)
        offsets, flat = split_text(text, column.splitter, na, column.name, where)
    null = pc.is_in(flat, value_set=pa.array(["", *na], flat.type))
    flat = pc.if_else(null, pa.scalar(None, flat.type), flat)
    try:
        return as_floats(flat.cast(pa.float64()), column.name, where, na), offsets
    except pa.ArrowInvalid:
        at, value = next(
            (i, v) for i, v in enumerate(flat.to_pylist()) if v is not None and not _is_number(v)
        )
        raise where.of_values(offsets).error(
            "not a number", column.name, at, value, "correct the sequence"
        ) from None


def _is_number(text: str) -> bool:
    try:
        pc.cast(pa.array([text]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
