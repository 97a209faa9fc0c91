"""Normalize ids to text, so that an id is the same in every type of a file.

In categories, sequences, groups and the id column, 7, 7.0, '7', ' 7 ' and '7.0' are all '7'.
Leading zeros of text are kept ('07' is not '7'). Text is Unicode NFC without surrounding blanks,
and a Boolean is 'true' or 'false'.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.config.schema import Dtype
from tossctr.data.plain_types import to_single_values
from tossctr.data.where import Where
from tossctr.errors import UserError

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")  # as pandas writes integers in a float column
# A large integer as Arrow, Python and Spark write it as float; '1e5' does not match.
_EXPONENT = re.compile(r"-?[1-9](?:\.[0-9]+)?[eE]\+[0-9]+|-?[1-9]\.[0-9]+[eE][0-9]+")
_PLAIN = r"^[A-Za-z_-]*[0-9]+$"  # fast path: text that needs no normalization
FLOAT_DIGITS = {16: 11, 32: 24, 64: 53}  # bits of exact integers, by the size of the float
_FLOATS: dict[int, type] = {16: np.float16, 32: np.float32, 64: float}
_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


class AmbiguousIdError(ValueError):
    """A float too large to distinguish neighbouring integers."""


def id_text(value: Any, na: Collection[str], float_bits: int = 64) -> str:
    """The text of one id; empty if the value is missing (None, NaN, blank, or in `na`).

    Args:
        value: a Python value.
        na: texts that mean a missing value.
        float_bits: size of the column's float type.

    Raises:
        AmbiguousIdError: an integral float from 2^53 on (2^24 of 32 bits, 2^11 of 16), or its text.
    """
    if isinstance(value, str):
        return _text(value, na)
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        text = _float(value, float_bits)
    elif isinstance(value, Decimal):
        whole = value == value.to_integral_value()
        text = str(int(value)) if whole else f"{value:f}".rstrip("0")
    else:
        text = str(value)
    return "" if text in na else text


def _text(text: str, na: Collection[str]) -> str:
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if text in na:
        return ""
    if text.isdigit() or not text:
        return text
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        if len(whole[1]) > 17 or abs(int(whole[1])) >= 2**53:
            raise AmbiguousIdError(text)
        text = "0" if whole[1] == "-0" else whole[1]
    elif _EXPONENT.fullmatch(text):
        text = _float(float(text), 64)
    else:
        return _BOOLEANS.get(text, text)
    return "" if text in na else text


def _float(value: float | np.floating[Any], bits: int) -> str:
    if not math.isfinite(value) or value != int(value):
        return str(_FLOATS[bits](value))  # the shortest text, as Arrow writes it
    if abs(value) >= 2 ** FLOAT_DIGITS[bits]:
        raise AmbiguousIdError(str(value))
    return str(int(value))


def typed_text(text: str, dtype: Dtype) -> str:
    """The text of an id of a numeric `dtype`: '07' as `int` is '7', '0.50' as `float` is '0.5'.

    Raises:
        ValueError, OverflowError: not a number of that dtype.
    """
    if dtype == "str":
        return text
    if "_" in text:  # Python reads '1_0' as a number
        raise ValueError(text)
    if text.lstrip("+-").isdecimal():
        return str(int(text))
    number = float(text)
    if dtype == "int" and number != int(number):
        raise ValueError(text)
    return _float(number, 64)


def dictionary_of(
    array: pa.Array, na: Collection[str], column: str, where: Where
) -> tuple[NDArray[np.int32], list[str]]:
    """Encode values as codes (N,) int32 into a list of texts, -1 for a missing value. Several codes
    may have the same text.

    Raises:
        UserError: an ambiguous float.
    """
    if pa.types.is_binary(array.type):
        array = array.cast(pa.string())
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    arrow_type = array.dictionary.type
    bits = arrow_type.bit_width if pa.types.is_floating(arrow_type) else 64
    codes = pc.fill_null(array.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    texts: list[str] = []
    for code, value in enumerate(array.dictionary.to_pylist()):
        try:
            texts.append(id_text(value, na, bits))
        except AmbiguousIdError as error:
            at = int((codes == code).argmax()) if (codes == code).any() else None
            raise _ambiguous(column, at, value, where) from error
    if "" in texts:
        # Codes of -1 index the last entry.
        codes = np.array([-1 if t == "" else i for i, t in enumerate(texts)] + [-1], np.int32)[
            codes
        ]
    return codes, texts


def categories(
    array: pa.Array,
    dtype: Dtype,
    na: Collection[str],
    column: str,
    where: Where,
) -> tuple[NDArray[np.int32], list[str]]:
    """A column of single ids as codes (N,) int32 (-1 if missing) and texts.

    Raises:
        UserError: a value is not of `dtype`, or the column holds lists or structs.
    """
    if pa.types.is_nested(array.type):
        raise where.error(
            f"holds {array.type}, not single values",
            column,
            None,
            None,
            to_single_values(array.type),
        )
    codes, texts = dictionary_of(array, na, column, where)
    return codes, as_dtype(codes, texts, dtype, column, where)


def as_dtype(
    codes: NDArray[np.int32],
    texts: list[str],
    dtype: Dtype,
    column: str,
    where: Where,
) -> list[str]:
    """Apply `typed_text`.

    Raises:
        UserError: a text is not of that dtype; names its first row.
    """
    if dtype == "str":
        return texts
    typed = []
    for code, text in enumerate(texts):
        try:
            typed.append(typed_text(text, dtype) if text else "")
        except (ValueError, OverflowError) as error:
            at = int((codes == code).argmax()) if (codes == code).any() else None
            if isinstance(error, AmbiguousIdError):
                raise _ambiguous(column, at, text, where) from error
            problem = "not a whole number" if dtype == "int" else "not a number"
            remedy = "correct it, or declare dtype: str"
            raise where.error(problem, column, at, text, remedy) from error
    return typed


def _ambiguous(column: str, at: int | None, value: Any, where: Where) -> UserError:
    return where.error(
        "a float too large to identify a single id",
        column,
        at,
        value,
        "write the ids as integers or as text",
    )


def id_array(array: pa.Array, na: Collection[str], column: str, where: Where) -> pa.Array:
    """The texts of a column of ids, (N,) large_string, null if missing.

    Raises:
        UserError: an ambiguous float, or the column holds lists or structs.
    """
    codes, texts = categories(array, "str", na, column, where)
    if not texts:
        return pa.nulls(len(array), pa.large_string())
    return pa.array(texts, pa.large_string()).take(pa.array(codes, mask=codes < 0))


def row_ids(array: pa.Array, na: Collection[str], column: str, where: Where) -> pa.Array:
    """(N,) large_string ids for an output's rows: text is unchanged, other types are normalized.

    Raises:
        UserError: an id is missing or an ambiguous float, or the column holds lists or structs.
    """
    if pa.types.is_nested(array.type):
        raise where.error(
            f"holds {array.type}, not ids", column, None, None, "set id_col to another column"
        )
    ids = id_array(array, na, column, where)
    if ids.null_count:
        at = pc.index(ids.is_null(), True).as_py()
        raise where.error("the id is missing", column, at, None, "give each row its id")
    arrow_type = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    is_text = pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type)
    return array.cast(pa.large_string()) if is_text else ids


def same_ids(ids: pa.Array) -> pa.Array:
    """Normalize (N,) large_string ids for comparison; null if blank.

    Raises:
        AmbiguousIdError: the text of an ambiguous float.
    """
    plain = pc.match_substring_regex(ids, _PLAIN)
    if pc.all(plain).as_py():
        return ids
    odd = [id_text(text, ()) or None for text in ids.filter(pc.invert(plain)).to_pylist()]
    return pc.replace_with_mask(ids, pc.invert(plain), pa.array(odd, ids.type))
