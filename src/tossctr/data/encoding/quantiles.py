"""Ranks of a column's values, learnt from a bounded sample of its rows.

Rows are drawn by the smallest hashes of their numbers, so that the sample depends neither on how
the rows were cut into batches nor on the order in which parts are merged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

Array = NDArray[Any]

SAMPLE = 1 << 15  # rows: a rank is within 0.9 % (three standard deviations) of the whole column's
KNOTS = 257


def row_hashes(rows: Array) -> NDArray[np.uint64]:
    """A hash (splitmix64) of each row number."""
    x = rows.astype(np.uint64)
    with np.errstate(over="ignore"):
        x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return hashes


class Quantiles(BaseModel):
    """x -> its rank among training values, 0 to 1: linear between `values`, which rise; ties have
    the middle of their ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    values: tuple[float, ...]
    ranks: tuple[float, ...]

    @model_validator(mode="after")
    def _rising(self) -> Quantiles:
        if not len(self.values) == len(self.ranks) > 0:
            raise ValueError("as many values as ranks, and one at least")
        if not (np.diff(self.values) > 0).all() or not (np.diff(self.ranks) >= 0).all():
            raise ValueError("values and ranks must rise")
        return self

    def __call__(self, x: Array) -> Array:
        """(N,) numbers, NaN staying NaN -> (N,) float64."""
        ranks: Array = np.interp(x, self.values, self.ranks)
        return ranks


@dataclass
class QuantileSample:
    """The values of the rows with the smallest hashes; mergeable."""

    size: int = SAMPLE
    limit: int = 2**64 - 1
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def update(self, values: Array, fill: float, hashes: NDArray[np.uint64]) -> None:
        """Take (N,) values, NaN standing for `fill`, of rows with these hashes."""
        drawn = hashes <= np.uint64(self.limit)
        taken = values[drawn].astype(np.float64)
        taken[np.isnan(taken)] = fill
        self._add(hashes[drawn], taken)

    def merge(self, other: QuantileSample) -> None:
        self._add(other.hashes, other.values)

    def _add(self, hashes: NDArray[np.uint64], values: Array) -> None:
        self.hashes = np.concatenate([self.hashes, hashes])
        self.values = np.concatenate([self.values, values])
        if len(self.hashes) > 2 * self.size:
            self._cut()

    def _cut(self) -> None:
        if len(self.hashes) > self.size:
            # Equal hashes (of columns that share a scaler) stay or go together.
            self.limit = int(np.partition(self.hashes, self.size - 1)[self.size - 1])
            kept = self.hashes <= np.uint64(self.limit)
            self.hashes, self.values = self.hashes[kept], self.values[kept]

    def quantiles(self, low: float, high: float) -> Quantiles:
        """The ranks of `KNOTS` values, from `low` to `high`, the least and greatest of all rows."""
        self._cut()
        if not len(self.values):
            return Quantiles(values=(0.0,), ranks=(0.5,))
        levels = np.linspace(0, 1, KNOTS)
        knots = np.quantile(self.values, levels, method="inverted_cdf")
        knots[0], knots[-1] = low, high
        values, first, counts = np.unique(knots, return_index=True, return_counts=True)
        ranks = (levels[first] + levels[first + counts - 1]) / 2
        return Quantiles(values=tuple(values.tolist()), ranks=tuple(ranks.tolist()))
