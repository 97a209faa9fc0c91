"""Tokenize sequences of ids, which are text or Arrow lists.

Integers joined as text are parsed from the Arrow buffer, and integers in lists are used directly;
other tokens are dictionary-encoded first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoding.ids import FLOAT_DIGITS, as_dtype, dictionary_of
from tossctr.data.encoding.joined import JoinedIntegers
from tossctr.data.encoding.lists import flat_list, is_list, plain_text, split_plain
from tossctr.data.encoding.vocabulary import is_int64
from tossctr.data.where import Where

Array = NDArray[Any]


SMALL_BYTES = 1 << 16


@dataclass(frozen=True)
class IntTokens:
    """values: (M,) int64 tokens; offsets: (N + 1,) int64; nulls: number of dropped null events."""

    values: Array
    offsets: Array
    nulls: int = 0


@dataclass(frozen=True)
class TextTokens:
    """codes: (M,) positions in `texts`, -1 for a kept null event; offsets: (N + 1,) int64; nulls:
    number of null events, kept or dropped."""

    codes: Array
    texts: list[str]
    offsets: Array
    nulls: int = 0


def joined_integers(array: pa.Array, splitter: str, na: Collection[str]) -> JoinedIntegers | None:
    """The fast path for joined text; None for lists, if an integer means a missing value, and for
    so little text that importing Numba would take longer."""
    if is_list(array) or array.nbytes < SMALL_BYTES or _null_integers(na):
        return None
    return JoinedIntegers.of(array, splitter)


def split_tokens(
    array: pa.Array,
    splitter: str,
    dtype: Literal["str", "int"],
    na: Collection[str],
    column: str,
    where: Where,
    *,
    keep_nulls: bool = False,
) -> IntTokens | TextTokens:
    """Tokenize N rows; a missing or empty row has no tokens.

    Args:
        array: text (string, large_string) or lists of values.
        splitter: separates ids in joined text.
        dtype: `int` reads tokens as numbers ('007' is 7), `str` as text ('007' is not '7').
        na: texts that mean a missing value.
        column, where: for errors.
        keep_nulls: keep null events as unknown ids instead of dropping them.

    Raises:
        UserError: a list that cannot be parsed, an ambiguous float, or with `int` a token that is
            not an integer.
    """
    if is_list(array):
        offsets, flat = flat_list(array)
        if pa.types.is_nested(flat.type):
            raise where.error(
                f"holds {array.type}, not lists of single ids",
                column,
                None,
                None,
                "write one list of ids per row, and other lists as separate columns",
            )
        return _tokens(offsets, flat, dtype, na, column, where, keep_nulls)
    joined = joined_integers(array, splitter, na)
    parsed = joined.parse() if joined is not None else None
    if parsed is None:
        array, apart = plain_text(array, splitter, na, column, where)
        joined = joined_integers(array, splitter, na) if not apart else None
        parsed = joined.parse() if joined is not None else None
        if parsed is None:
            offsets, flat = split_plain(array, apart, splitter, column, where)
            return _tokens(offsets, flat, dtype, na, column, where, keep_nulls)
    return IntTokens(*parsed)


def _tokens(
    offsets: Array,
    flat: pa.Array,
    dtype: Literal["str", "int"],
    na: Collection[str],
    column: str,
    where: Where,
    keep_nulls: bool,
) -> IntTokens | TextTokens:
    integers = _as_int64(flat, dtype)
    if integers is not None:
        null = integers.is_null().to_numpy(zero_copy_only=False)
        values = pc.fill_null(integers, 0).to_numpy(zero_copy_only=False)
        null = null | np.isin(values, _null_integers(na))
        nulls = int(null.sum())
        if not nulls:
            return IntTokens(values, offsets)
        if not keep_nulls:
            return IntTokens(values[~null], _left(offsets, ~null), nulls)
    rows = where.of_values(offsets)
    codes, texts = dictionary_of(flat, na, column, rows)
    texts = as_dtype(codes, texts, dtype, column, rows)
    null = codes < 0
    nulls = int(null.sum())
    if keep_nulls or not nulls:
        return TextTokens(codes, texts, offsets, nulls)
    return TextTokens(codes[~null], texts, _left(offsets, ~null), nulls)


def _left(offsets: Array, kept: Array) -> Array:
    """The offsets after dropping all values but `kept` (M,)."""
    before = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(kept, out=before[1:])
    return before[offsets]


def _null_integers(na: Collection[str]) -> list[int]:
    return [int(text) for text in na if is_int64(text)]


def _as_int64(flat: pa.Array, dtype: Literal["str", "int"]) -> pa.Array | None:
    """Integers as int64, null if missing; None if a value is not an integer or too large."""
    arrow_type = flat.type
    if pa.types.is_float32(arrow_type) or pa.types.is_float64(arrow_type):
        flat = pc.if_else(pc.is_nan(flat), pa.scalar(None, arrow_type), flat)
        largest = pc.max(pc.abs(flat)).as_py()
        if largest is not None and largest >= 2 ** FLOAT_DIGITS[arrow_type.bit_width]:
            return None
    elif pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type):
        if dtype == "str":
            return None
    elif not (pa.types.is_integer(arrow_type) or pa.types.is_null(arrow_type)):
        return None
    try:
        return flat.cast(pa.int64())
    except pa.ArrowInvalid:  # text, or beyond int64
        return None
