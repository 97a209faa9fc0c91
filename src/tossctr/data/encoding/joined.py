"""Fast path for sequences of integers joined as text, parsed from the Arrow buffer.

Only integers whose text is canonical ('42', not '042', '+42' or '42.0') are parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_DIGITS = 18  # any integer with as many digits fits in int64


@dataclass(frozen=True)
class JoinedIntegers:
    """N rows of joined text as buffers, for sequences of non-negative integers.

    Methods return None if a token is not a canonical integer or too large for the table.
    """

    data: Array  # (bytes,) uint8
    starts: Array  # (N + 1,) int32 or int64, positions in data
    separator: int

    @classmethod
    def of(cls, array: pa.Array, splitter: str) -> JoinedIntegers | None:
        """A view of a string column; None for splitters of several bytes."""
        separator = splitter.encode()
        if len(separator) != 1 or separator.isdigit():
            return None
        if array.null_count:
            array = pc.fill_null(array, "")
        offset_type = np.int64 if pa.types.is_large_string(array.type) else np.int32
        _, starts, data = array.buffers()
        if len(array) == 0 or starts is None:
            return cls(np.zeros(0, np.uint8), np.zeros(len(array) + 1, offset_type), separator[0])
        return cls(
            np.frombuffer(data or b"", np.uint8),
            np.frombuffer(starts, offset_type)[array.offset : array.offset + len(array) + 1],
            separator[0],
        )

    def _scratch(self) -> Array:
        longest = int(np.diff(self.starts).max(initial=0))
        return np.empty(longest // 2 + 1, np.int64)

    def _capacity(self) -> int:
        """An upper bound of the number of tokens: separators plus rows."""
        return (int(self.starts[-1]) - int(self.starts[0]) + len(self.starts)) // 2 + 1

    def count(self, size: int) -> tuple[Array, int] | None:
        """(size,) int64 counts of the ids 0..size-1, and the length of the longest row."""
        table = np.zeros(size, np.int64)
        longest = _count(self.data, self.starts, self.separator, table, self._scratch())
        return None if longest < 0 else (table, int(longest))

    def look_up(self, table: Array, oov: int) -> tuple[Array, Array, int] | None:
        """table[token] of every token (`oov` beyond the table), offsets, and the number of
        `oov`."""
        out = np.empty(self._capacity(), table.dtype)
        offsets = np.zeros(len(self.starts), np.int64)
        scratch = self._scratch()
        unseen = _look_up(self.data, self.starts, self.separator, table, oov, scratch, out, offsets)
        return None if unseen < 0 else (out[: offsets[-1]], offsets, unseen)

    def parse(self) -> tuple[Array, Array] | None:
        """(M,) int64 integers, and offsets."""
        out = np.empty(self._capacity(), np.int64)
        offsets = np.zeros(len(self.starts), np.int64)
        ok = _parse(self.data, self.starts, self.separator, out, offsets)
        return (out[: offsets[-1]], offsets) if ok else None


# Positions in the loops below are unsigned, which saves Numba's check for negative indices.


@njit(nogil=True, cache=True)
def _parse_row(data: Array, start: int, end: int, separator: int, out: Array, at: int) -> Any:
    """Write the integers of data[start:end] to out[at:]; return the end position, or -1."""
    zero, nine, one = np.uint64(48), np.uint64(9), np.uint64(1)
    i, stop, split, n = np.uint64(start), np.uint64(end), np.uint64(separator), np.uint64(at)
    if i == stop:
        return np.int64(n)
    while i < stop:
        value = np.uint64(data[i]) - zero  # above 9 for every byte that is not a digit
        if value > nine:
            return -1
        first = i
        i += one
        while i < stop:
            byte = np.uint64(data[i])
            if byte == split:
                break
            digit = byte - zero
            # A leading zero: the text is not canonical.
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
def _count(data: Array, starts: Array, separator: int, table: Array, scratch: Array) -> int:
    size = np.uint64(len(table))
    longest = 0
    for row in range(len(starts) - 1):
        tokens = _parse_row(data, starts[row], starts[row + 1], separator, scratch, 0)
        if tokens < 0:
            return -1
        for j in range(tokens):
            token = np.uint64(scratch[j])
            if token >= size:
                return -1
            table[token] += 1
        longest = max(longest, tokens)
    return longest


@njit(nogil=True, cache=True)
def _look_up(
    data: Array,
    starts: Array,
    separator: int,
    table: Array,
    oov: int,
    scratch: Array,
    out: Array,
    offsets: Array,
) -> int:
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
def _parse(data: Array, starts: Array, separator: int, out: Array, offsets: Array) -> bool:
    position = 0
    for row in range(len(starts) - 1):
        position = _parse_row(data, starts[row], starts[row + 1], separator, out, position)
        if position < 0:
            return False
        offsets[row + 1] = position
    return True
