"""The text that a raw value stands for in a vocabulary.

A string is its own text; an integer 7 is '7'; a float column's 7.0 is '7.0' (a float32 is written
with the digits that a float32 needs); a Boolean is 'true' or 'false'. So the same category must
have the same type in every file: text '7' and float 7.0 are two categories, unless the feature's
dtype says which of both is meant.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.plain_types import to_single_values
from tossctr.data.where import Where

_FLOAT = re.compile(r"-?(0|[1-9]\d*)\.\d+")


def dictionary_of(array: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """Values -> codes (N,) int32 into a list of texts; a missing value has the code -1.

    Null, NaN and the empty string are missing. Two codes may have the same text.
    """
    if pa.types.is_binary(array.type):
        array = array.cast(pa.string())
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    values = array.dictionary.to_pylist()
    narrow = pa.types.is_float32(array.dictionary.type)
    codes = pc.fill_null(array.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    texts = ["" if _is_missing(v) else _text(np.float32(v) if narrow else v) for v in values]
    if "" in texts:
        # The last entry is reached by the codes that are -1 already.
        codes = np.array([-1 if t == "" else i for i, t in enumerate(texts)] + [-1], np.int32)[
            codes
        ]
    return codes, texts


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def categories(
    array: pa.Array, dtype: Literal["str", "int", "float"], column: str, where: Where
) -> tuple[NDArray[np.int32], list[str]]:
    """A categorical column -> codes (N,) int32 (-1 where missing) and texts, read as `dtype`:
    with `int`, '07' and 7.0 are '7'; with `float`, '7' and 7 are '7.0'; with `str` nothing changes.

    Raises:
        UserError: a value that is no such number, or a column that is not of single values.
    """
    if pa.types.is_nested(array.type):
        raise where.error(
            f"holds {array.type}, not single values",
            column,
            None,
            None,
            to_single_values(array.type),
        )
    codes, texts = dictionary_of(array)
    if dtype == "str":
        return codes, texts
    for code, text in enumerate(texts):
        try:
            texts[code] = _number(text, dtype) if text else ""
        except (ValueError, OverflowError) as error:
            at = int(np.flatnonzero(codes == code)[0]) if (codes == code).any() else None
            raise where.error(
                "not a whole number" if dtype == "int" else "not a number",
                column,
                at,
                text,
                "correct it, or declare dtype: str",
            ) from error
    return codes, texts


def _number(text: str, dtype: Literal["int", "float"]) -> str:
    if "_" in text:  # Python reads '1_0' as a number
        raise ValueError(text)
    if dtype == "float":
        return text if _FLOAT.fullmatch(text) else str(float(text))
    if text.lstrip("+-").isdecimal():
        return str(int(text))
    if float(text) != int(float(text)):
        raise ValueError(text)
    return str(int(float(text)))


def as_text(array: pa.Array, column: str, where: Where) -> pa.Array:
    """A column of joined sequences as string or large_string.

    Raises:
        UserError: a column of neither text nor whole numbers (a number is a sequence of one).
    """
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array if array.type == kind else array.cast(kind)
    if pa.types.is_integer(kind) or pa.types.is_binary(kind) or pa.types.is_null(kind):
        return array.cast(kind).cast(pa.string())
    raise where.error(
        f"holds {kind}, not joined text or lists",
        column,
        None,
        None,
        "write lists of ids, or texts of ids with a splitter between them",
    )
