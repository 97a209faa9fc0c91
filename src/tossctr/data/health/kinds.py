"""Detect the kind of a column from its type, or in CSV from its values."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoding.lists import SPLITTERS, is_list

Kind = Literal["numbers", "times", "texts", "sequences", "other"]

NUMBER = r"^\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf|infinity)\s*$"
TRUE_OR_FALSE = r"^\s*(true|false)\s*$"
_CODE = r"^\s*[+-]?0\d"  # 007 and 00 are ids, not numbers
_LIST = r"^\s*(\[[^\[\]]*\]|\{[^{}]*\})\s*$"  # a list printed as text
_SHARE = 0.9  # least share of numbers in the first filled values, as a few may be invalid


def filled(array: pa.Array) -> pa.Array:
    """The values of a column that are neither null nor empty text."""
    array = array.drop_null()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array.filter(pc.not_equal(array, ""))
    return array


def kind_of(array: pa.Array, has_types: bool) -> tuple[Kind, str | None]:
    """Kind of a column and splitter of joined sequences, from its first filled values.

    Without `has_types`, all columns are text (CSV), and numbers are detected from the text.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if is_list(array):
        return ("other" if pa.types.is_nested(kind.value_type) else "sequences"), None
    if pa.types.is_nested(kind):
        return "other", None
    if pa.types.is_binary(kind):
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            return "other", None
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _of_texts(filled(array), has_types)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "times", None
    return "numbers", None


def _of_texts(texts: pa.Array, has_types: bool) -> tuple[Kind, str | None]:
    if 2 * _matches(texts, _LIST) > len(texts):
        return "sequences", None
    for splitter, pattern in SPLITTERS.items():
        if 2 * _matches(texts, f"^{pattern}$") > len(texts):
            return "sequences", splitter
    if not has_types and len(texts):
        numbers = _matches(texts, NUMBER) >= _SHARE * len(texts) and not _matches(texts, _CODE)
        if numbers or are_flags(texts):
            return "numbers", None
    return "texts", None


def are_flags(texts: pa.Array) -> bool:
    """Whether text in CSV is true and false."""
    if not pa.types.is_string(texts.type) or not len(texts):
        return False
    return _matches(texts, TRUE_OR_FALSE) >= _SHARE * len(texts)


def _matches(texts: pa.Array, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(texts, pattern, ignore_case=True)).as_py() or 0)


def numbers_in(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Text as numbers (N,), with true as 1 and false as 0, null if missing; and (N,) which rows are
    something else."""
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    flags = pc.match_substring_regex(lower, TRUE_OR_FALSE)
    lower = pc.if_else(flags, pc.if_else(pc.equal(lower, "true"), "1", "0"), lower)
    good = pc.fill_null(pc.match_substring_regex(lower, NUMBER), False)
    wrong = pc.and_(pc.invert(good), pc.fill_null(pc.not_equal(texts, ""), False))
    numbers = pc.if_else(good, lower, pa.scalar(None, lower.type)).cast(pa.float64())
    return numbers, wrong.to_numpy(zero_copy_only=False)
