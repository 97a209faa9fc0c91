"""The encoder's compiled loops over values and text.

Numba takes half a second to import, so callers import this module where they use it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
MAX_DIGITS = 18  # any integer with as many digits fits in int64


@njit(nogil=True, cache=True)
def value_range(values: Array, fill: float, limit: float) -> tuple[float, float, int]:
    """Lowest and highest value, with `fill` for NaN, and the position of one beyond `limit` (-1:
    none)."""
    low = np.inf
    high = -np.inf
    for i in range(len(values)):
        x: float = np.float64(values[i])
        if x != x:
            x = fill
        if not abs(x) <= limit:
            return low, high, i
        low = min(low, x)
        high = max(high, x)
    return low, high, -1


@njit(nogil=True, cache=True)
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """a + b as rounded sum and exact remainder (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@njit(nogil=True, cache=True)
def _square(a: float) -> tuple[float, float]:
    """a * a as rounded product and exact remainder (Dekker, splitting at 27 bits)."""
    p = a * a
    c = 134217729.0 * a
    high = c - (c - a)
    low = a - high
    return p, ((high * high - p) + 2.0 * high * low) + low * low


@njit(nogil=True, cache=True)
def _add(sums: Array, k: int, high: float, low: float) -> None:
    s, e = _two_sum(sums[k, 0], high)
    sums[k, 0], sums[k, 1] = _two_sum(s, e + sums[k, 1] + low)


@njit(nogil=True, cache=True)
def add_sums(values: Array, fill: float, sums: Array) -> None:
    """Add values and their squares to sums (2, 2), each an exact pair of high and low part."""
    for i in range(len(values)):
        x: float = np.float64(values[i])
        if x != x:
            x = fill
        _add(sums, 0, x, 0.0)
        high, low = _square(x)
        _add(sums, 1, high, low)


@njit(nogil=True, cache=True)
def merge_sums(sums: Array, other: Array) -> None:
    """Add the sums of other values."""
    for k in range(2):
        _add(sums, k, other[k, 0], other[k, 1])


@njit(nogil=True, cache=True)
def sum_of_hashes(bits: Array, hashes: Array) -> tuple[Any, Any, Any]:
    """The sum of the hashes of bits (N,) and hashes (N,), and the lowest and highest bits."""
    total = np.uint64(0)
    low, high = bits[0], bits[0]
    for i in range(len(bits)):
        x = bits[i]
        low, high = min(low, x), max(high, x)
        x = (x ^ hashes[i]) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total += x ^ (x >> np.uint64(31))
    return total, low, high


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
def count_tokens(data: Array, starts: Array, separator: int, table: Array, scratch: Array) -> int:
    """Count the tokens of each row into `table`; return the length of the longest row, or -1 if
    a token is not canonical or beyond the table."""
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
def look_up_tokens(
    data: Array,
    starts: Array,
    separator: int,
    table: Array,
    oov: int,
    scratch: Array,
    out: Array,
    offsets: Array,
) -> int:
    """Write table[token] of all tokens to `out` and the rows' `offsets`; return the number of
    `oov`, or -1 if a token is not canonical."""
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
def parse_tokens(data: Array, starts: Array, separator: int, out: Array, offsets: Array) -> bool:
    """Write all tokens to `out` and the rows' `offsets`; False if one is not canonical."""
    position = 0
    for row in range(len(starts) - 1):
        position = _parse_row(data, starts[row], starts[row + 1], separator, out, position)
        if position < 0:
            return False
        offsets[row + 1] = position
    return True
