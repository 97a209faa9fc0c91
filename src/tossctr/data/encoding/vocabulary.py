"""Count the tokens of a categorical column or an id sequence, and map them to indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PAD = 0  # index of padding
COUNTED_IN_ARRAY = 1 << 16  # ids below this are counted in an array, others in a dictionary
TABLE_LIMIT = 1 << 22  # ids below this are looked up in an array, others by binary search


def smallest_unsigned(size: int) -> np.dtype[Any]:
    """The smallest unsigned dtype (1, 2 or 4 bytes) for the indices 0..size-1."""
    return np.dtype(np.min_scalar_type(max(size - 1, 0)))


class TokenCounts:
    """Mergeable counts of tokens."""

    def __init__(self) -> None:
        self._small: Array | None = None
        self._other: dict[str, int] = {}

    def add_table(self, table: Array) -> None:
        """Add counts of the ids 0..COUNTED_IN_ARRAY-1."""
        if self._small is None:
            self._small = table
        else:
            self._small += table

    def add_integers(self, values: Array) -> None:
        small = (values >= 0) & (values < COUNTED_IN_ARRAY)
        self.add_table(np.bincount(values[small], minlength=COUNTED_IN_ARRAY))
        tokens, counts = np.unique(values[~small], return_counts=True)
        self._add(zip(map(str, tokens.tolist()), counts.tolist(), strict=True))

    def add_texts(self, codes: Array, texts: Sequence[str]) -> None:
        """Count texts by code; negative codes are missing values."""
        counts = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
        self._add((text, n) for text, n in zip(texts, counts, strict=True) if n)

    def add(self, token: str, count: int) -> None:
        self._add([(token, count)])

    def merge(self, other: TokenCounts) -> None:
        if other._small is not None:
            self.add_table(other._small.copy())
        self._add(other._other.items())

    def totals(self) -> dict[str, int]:
        totals = dict(self._other)
        if self._small is not None:
            for token in np.flatnonzero(self._small).tolist():
                totals[str(token)] = totals.get(str(token), 0) + int(self._small[token])
        return totals

    def _add(self, counts: Iterable[tuple[str, int]]) -> None:
        for token, count in counts:
            self._other[token] = self._other.get(token, 0) + count


def frequent_tokens(counts: Mapping[str, int], min_count: int) -> tuple[str, ...]:
    """Tokens with at least `min_count` occurrences, most frequent first, ties by text."""
    kept = [token for token, count in counts.items() if count >= min_count]
    return tuple(sorted(kept, key=lambda token: (-counts[token], token)))


class Vocabulary:
    """Maps tokens to indices: PAD is 0, tokens start at 1, OOV is the last index.

    Attributes:
        size: number of indices, with PAD and OOV.
        oov: `size - 1`, the index of unknown tokens.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.size = len(tokens) + 2
        self.oov = self.size - 1
        self._identity = False
        self._index = {token: index for index, token in enumerate(tokens, start=1)}
        pairs = [(int(t), i) for t, i in self._index.items() if is_int64(t)]
        self._build([token for token, _ in pairs], [index for _, index in pairs])

    @classmethod
    def of_indices(cls, size: int) -> Vocabulary:
        """The vocabulary of a column that holds indices 0..size-1 already (`remap: false`)."""
        self = cls(())
        self.size, self.oov = size, size - 1
        self._identity = True
        dtype = smallest_unsigned(size)
        self._values = np.empty(0, dtype)  # only its type is used
        self._table = np.arange(size, dtype=dtype) if size <= TABLE_LIMIT else None
        return self

    def _build(self, integers: list[int], indices: list[int]) -> None:
        dtype = smallest_unsigned(self.size)
        order = np.argsort(np.array(integers, np.int64))
        self._keys = np.array(integers, np.int64)[order]
        self._values = np.array(indices, dtype)[order]
        self._table: Array | None = None
        if len(integers) == 0 or (min(integers) >= 0 and max(integers) < TABLE_LIMIT):
            self._table = np.full(max(integers, default=-1) + 1, self.oov, dtype)
            self._table[self._keys] = self._values

    @property
    def table(self) -> Array | None:
        """Indices of the integer tokens 0, 1, ...; larger integers are OOV. None if the integers
        are too large for a table."""
        return self._table

    def look_up_integers(self, values: Array) -> Array:
        """Indices of (M,) int64 tokens in the smallest unsigned dtype."""
        if self._identity:
            known = (values >= 0) & (values < self.size)
            return np.where(known, values, self.oov).astype(self._values.dtype)
        if not len(self._keys):
            return np.full(len(values), self.oov, self._values.dtype)
        if self._table is not None:
            known = (values >= 0) & (values < len(self._table))
            return np.where(known, self._table[np.where(known, values, 0)], self.oov).astype(
                self._table.dtype
            )
        at = np.minimum(np.searchsorted(self._keys, values), len(self._keys) - 1)
        indices = np.where(self._keys[at] == values, self._values[at], self.oov)
        return indices.astype(self._values.dtype)

    def look_up_texts(self, codes: Array, texts: Sequence[str], missing: int) -> Array:
        """Indices of (M,) codes into `texts`; the code -1 becomes the index `missing`."""
        table = np.array([*map(self.look_up, texts), missing], self._values.dtype)
        return table[codes]

    def look_up(self, text: str) -> int:
        """Index of one token."""
        if self._index:
            return self._index.get(text, self.oov)
        value = int(text) if is_int64(text) else -1
        return int(self.look_up_integers(np.array([value]))[0])


def is_int64(text: str) -> bool:
    """Whether the text is a canonical int64 ('7' and '-7', not '07')."""
    digits = text.removeprefix("-")
    return (
        digits.isascii()
        and digits.isdigit()
        and len(digits) <= 19
        and str(int(text)) == text
        and -(2**63) <= int(text) < 2**63
    )
