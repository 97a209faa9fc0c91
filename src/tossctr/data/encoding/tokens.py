"""Sequences of ids: joined text or Arrow lists -> tokens and offsets.

A token is text; an integer written the usual way ('42', not '042' or '+42') stands for its own
text, so sequences of those are parsed straight from the Arrow buffer, and everything else goes
through Arrow's split and dictionary encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from tossctr.data.encoding.texts import dictionary_of
from tossctr.data.where import Where

Array = NDArray[Any]

_MEND = "correct the sequence, or its dtype"
MAX_DIGITS = 18  # any integer of so many digits fits into int64


@dataclass(frozen=True)
class IntTokens:
    """values: (M,) int64, each standing for its own text; offsets: (N + 1,) int64."""

    values: Array
    offsets: Array


@dataclass(frozen=True)
class TextTokens:
    """codes: (M,) positions in `texts`; offsets: (N + 1,) int64."""

    codes: Array
    texts: list[str]
    offsets: Array


def is_list(array: pa.Array) -> bool:
    """Whether each row is a list already."""
    return bool(pa.types.is_list(array.type) or pa.types.is_large_list(array.type))


@dataclass(frozen=True)
class JoinedIntegers:
    """N rows of joined text as buffers, for sequences of non-negative integers.

    Each method gives None where some token is not such an integer, or too large for the table.
    """

    data: Array  # (bytes,) uint8
    starts: Array  # (N + 1,) int32 or int64, positions in data
    separator: int

    @classmethod
    def of(cls, array: pa.Array, splitter: str) -> JoinedIntegers | None:
        """A view of a string column; None for lists and splitters of several bytes."""
        separator = splitter.encode()
        if is_list(array) or len(separator) != 1 or separator.isdigit():
            return None
        if array.null_count:
            array = pc.fill_null(array, "")
        kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
        _, starts, data = array.buffers()
        if len(array) == 0 or starts is None:
            return cls(np.zeros(0, np.uint8), np.zeros(len(array) + 1, kind), separator[0])
        return cls(
            np.frombuffer(data or b"", np.uint8),
            np.frombuffer(starts, kind)[array.offset : array.offset + len(array) + 1],
            separator[0],
        )

    def _scratch(self) -> Array:
        longest = int(np.diff(self.starts).max(initial=0))
        return np.empty(longest // 2 + 1, np.int64)

    def _capacity(self) -> int:
        """At least as many as there are tokens: each but a row's last has a separator."""
        return (int(self.starts[-1]) - int(self.starts[0]) + len(self.starts)) // 2 + 1

    def count(self, size: int) -> Array | None:
        """(size,) int64: how often each of the ids 0..size-1 occurs."""
        table = np.zeros(size, np.int64)
        ok = _count(self.data, self.starts, self.separator, table, self._scratch())
        return table if ok else None

    def look_up(self, table: Array, oov: int) -> tuple[Array, Array, int] | None:
        """table[token] of every token (oov beyond the table), offsets, how many became oov."""
        out = np.empty(self._capacity(), table.dtype)
        offsets = np.zeros(len(self.starts), np.int64)
        scratch = self._scratch()
        unseen = _look_up(self.data, self.starts, self.separator, table, oov, scratch, out, offsets)
        return None if unseen < 0 else (out[: offsets[-1]], offsets, unseen)

    def parse(self) -> IntTokens | None:
        out = np.empty(self._capacity(), np.int64)
        offsets = np.zeros(len(self.starts), np.int64)
        ok = _parse(self.data, self.starts, self.separator, out, offsets)
        return IntTokens(out[: offsets[-1]], offsets) if ok else None


def split_tokens(
    array: pa.Array, splitter: str, dtype: Literal["str", "int"], column: str, where: Where
) -> IntTokens | TextTokens:
    """The tokens of N rows; a missing or empty row has none. Blanks around a token are dropped.

    Args:
        array: joined text (string, large_string) or lists of integers or strings.
        dtype: `int` takes every token as a number ('007' is 7), `str` as text ('007' is not '7').

    Raises:
        UserError: an empty token, a missing list element, or with `int` a token that is none.
    """
    if is_list(array):
        offsets, flat = flat_list(array)
        if pa.types.is_nested(flat.type):
            raise where.error(
                f"holds {array.type}, not lists of single ids",
                column,
                None,
                None,
                "write one list of ids a row; another list is a column of its own",
            )
        if flat.null_count:
            at = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
            raise where.of_values(offsets).error("a missing id in a list", column, at, None, _MEND)
    else:
        joined = JoinedIntegers.of(array, splitter)
        parsed = joined.parse() if joined is not None else None
        if parsed is not None:
            return parsed
        offsets, flat = split_text(array, splitter, column, where)
    integers = _as_int64(flat) if dtype == "int" or pa.types.is_integer(flat.type) else None
    if integers is not None:
        return IntTokens(integers.to_numpy(zero_copy_only=False), offsets)
    if dtype == "int":
        at = _first_bad(flat)
        raise where.of_values(offsets).error(
            "not a whole number of at most 64 bits", column, at, flat[at].as_py(), _MEND
        )
    codes, texts = dictionary_of(flat)
    if len(codes) and codes.min() < 0:
        at = int(np.flatnonzero(codes < 0)[0])
        raise where.of_values(offsets).error("an empty id in a list", column, at, None, _MEND)
    return TextTokens(codes, texts, offsets)


def split_text(array: pa.Array, splitter: str, column: str, where: Where) -> tuple[Array, pa.Array]:
    """Joined text -> offsets (N + 1,) int64 and the flat, trimmed tokens as strings.

    Raises:
        UserError: an empty token between two splitters; no splitter at all, but another one.
    """
    blanks = splitter == " "  # any number of them is one
    array = pc.utf8_trim_whitespace(array) if splitter.strip() or blanks else array
    array = pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)
    lists = pc.utf8_split_whitespace(array) if blanks else pc.split_pattern(array, splitter)
    offsets, flat = flat_list(lists)
    if np.diff(offsets).max(initial=0) == 1:
        _refuse_other_splitter(array, splitter, column, where)
    flat = pc.utf8_trim_whitespace(flat)
    empty = pc.equal(flat, "").to_numpy(zero_copy_only=False)
    if empty.any():
        at = int(np.flatnonzero(empty)[0])
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        raise where.error(
            "an empty value in a sequence",
            column,
            row,
            array[row].as_py(),
            f"write values joined by single {splitter!r}",
        )
    return offsets, flat


# What joins ids in files; texts hold blanks and commas too, so there only numbers count.
SPLITTERS = {
    "^": r"[^^]+(\^[^^]+)+",
    "|": r"[^|]+(\|[^|]+)+",
    ",": r"-?\d+(,\s*-?\d+)+",
    ";": r"-?\d+(;\s*-?\d+)+",
    " ": r"-?\d+( +-?\d+)+",
    "\t": r"-?\d+(\t-?\d+)+",
}


def _refuse_other_splitter(array: pa.Array, splitter: str, column: str, where: Where) -> None:
    """Raise where most rows, none of which holds the splitter, are joined by another."""
    rows = len(array) - array.null_count
    for other, pattern in SPLITTERS.items():
        if other == splitter:
            continue
        joined = pc.match_substring_regex(array, f"^{pattern}$")
        if 2 * (pc.sum(joined).as_py() or 0) > rows:
            at = pc.index(joined, True).as_py()
            raise where.error(
                f"no splitter {splitter!r} in these sequences, but {other!r}",
                column,
                at,
                array[at].as_py(),
                f"set splitter: {other!r} in the data set's config",
            )


def flat_list(lists: pa.Array) -> tuple[Array, pa.Array]:
    """Lists -> offsets (N + 1,) int64 and their elements; a missing list is empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, lists.flatten()


def _as_int64(flat: pa.Array) -> pa.Array | None:
    try:
        return flat.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _first_bad(flat: pa.Array) -> int:
    """Position of the first element that does not cast to int64 (there is one)."""
    low, high = 0, len(flat)
    while high - low > 1:
        middle = (low + high) // 2
        if _as_int64(flat.slice(low, middle - low)) is None:
            high = middle
        else:
            low = middle
    return low


# In the loops below positions are unsigned: a signed index costs Numba a check for wrap-around.


@njit(nogil=True, cache=True)
def _parse_row(data, start, end, separator, out, at):  # type: ignore[no-untyped-def]
    """Write the integers of data[start:end] to out[at:]; the position after, or -1."""
    zero, nine, one = np.uint64(48), np.uint64(9), np.uint64(1)
    i, stop, split, n = np.uint64(start), np.uint64(end), np.uint64(separator), np.uint64(at)
    if i == stop:
        return np.int64(n)
    while i < stop:
        value = np.uint64(data[i]) - zero  # above nine for every other byte
        if value > nine:
            return -1
        first = i
        i += one
        while i < stop:
            byte = np.uint64(data[i])
            if byte == split:
                break
            digit = byte - zero
            # A leading zero makes another text than the integer's own.
            if (digit > nine) | (value == np.uint64(0)):
                return -1
            value = value * np.uint64(10) + digit
            i += one
        if i - first > np.uint64(MAX_DIGITS):
            return -1
        out[n] = np.int64(value)
        n += one
        if i == stop:
            return np.int64(n)
        i += one
    return -1  # the last byte is a separator


@njit(nogil=True, cache=True)
def _count(data, starts, separator, table, scratch):  # type: ignore[no-untyped-def]
    size = np.uint64(len(table))
    for row in range(len(starts) - 1):
        tokens = _parse_row(data, starts[row], starts[row + 1], separator, scratch, 0)
        if tokens < 0:
            return False
        for j in range(tokens):
            token = np.uint64(scratch[j])
            if token >= size:
                return False
            table[token] += 1
    return True


@njit(nogil=True, cache=True)
def _look_up(data, starts, separator, table, oov, scratch, out, offsets):  # type: ignore[no-untyped-def]
    size = np.uint64(len(table))
    position = 0
    unseen = 0
    for row in range(len(starts) - 1):
        tokens = _parse_row(data, starts[row], starts[row + 1], separator, scratch, 0)
        if tokens < 0:
            return -1
        for j in range(tokens):
            token = np.uint64(scratch[j])
            index = np.int64(table[token]) if token < size else oov
            unseen += index == oov
            out[position + j] = index
        position += tokens
        offsets[row + 1] = position
    return unseen


@njit(nogil=True, cache=True)
def _parse(data, starts, separator, out, offsets):  # type: ignore[no-untyped-def]
    position = 0
    for row in range(len(starts) - 1):
        position = _parse_row(data, starts[row], starts[row + 1], separator, out, position)
        if position < 0:
            return False
        offsets[row + 1] = position
    return True
