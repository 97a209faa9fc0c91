"""Find constant columns, and duplicates of another column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.encoding.decode import text_hash

Array = NDArray[Any]


@dataclass
class ColumnHash:
    """The sum of 64-bit hashes of (row, value) pairs, and the range of the values' bits; mergeable
    in any order. Two different columns have equal sums with probability 2^-64."""

    total: int = 0
    low: int = 2**64 - 1
    high: int = 0

    @property
    def is_constant(self) -> bool:
        return self.low == self.high

    def update(self, bits: NDArray[np.uint64], row_hashes: NDArray[np.uint64]) -> None:
        """Add the bits of (N,) values and the hashes of their rows."""
        from tossctr.data.encoding.kernels import sum_of_hashes

        if len(bits):
            total, low, high = map(int, sum_of_hashes(bits, row_hashes))
            self.merge(ColumnHash(total, low, high))

    def merge(self, other: ColumnHash) -> None:
        self.total = (self.total + other.total) % 2**64
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


def number_bits(values: Array, fill: float) -> NDArray[np.uint64]:
    """The bits of (N,) numbers, with `fill` for NaN; -0 is 0."""
    numbers = np.asarray(values, np.float64) + 0.0
    numbers[np.isnan(numbers)] = fill
    return numbers.view(np.uint64)


def text_bits(codes: Array, texts: list[str], missing: str | None) -> NDArray[np.uint64]:
    """The hashes of (N,) categories, given as codes into `texts` (-1: missing)."""
    hashes = [text_hash(text) for text in texts]
    hashes.append(0 if missing is None else text_hash(missing))
    return np.array(hashes, np.int64)[codes].view(np.uint64)


def redundant(
    hashes: Mapping[str, ColumnHash], types: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Constant columns, and the first equal column of the same type for each duplicate."""
    constant = [name for name, of in hashes.items() if of.is_constant]
    first: dict[tuple[str, int], str] = {}
    duplicates: dict[str, str] = {}
    for name, of in hashes.items():
        if not of.is_constant:
            original = first.setdefault((types[name], of.total), name)
            if original != name:
                duplicates[name] = original
    return constant, duplicates
