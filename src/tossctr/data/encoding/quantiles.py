"""Quantile transform of a column, estimated from a bounded sample of its rows.

The sample is the rows with the smallest hashes of their row numbers, so that it depends neither on
batches nor on the order of merging.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

Array = NDArray[Any]

SAMPLE = 1 << 15  # rows; the error of a rank is at most 0.9 % (three standard deviations)
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
    """Maps x to its rank among training values in [0, 1]: linear between the increasing `values`,
    the mean rank for ties."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    values: tuple[float, ...]
    ranks: tuple[float, ...]

    @model_validator(mode="after")
    def _rising(self) -> Quantiles:
        if not len(self.values) == len(self.ranks) > 0:
            raise ValueError("values and ranks differ in number, or are empty")
        if not (np.diff(self.values) > 0).all() or not (np.diff(self.ranks) >= 0).all():
            raise ValueError("values and ranks must increase")
        return self

    def __call__(self, x: Array) -> Array:
        """Ranks of (N,) numbers as float64; NaN stays NaN."""
        ranks: Array = np.interp(x, self.values, self.ranks)
        return ranks


@dataclass
class QuantileSample:
    """A mergeable sample: the values of the rows with the smallest hashes."""

    size: int = SAMPLE
    limit: int = 2**64 - 1
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def update(self, values: Array, fill: float, hashes: NDArray[np.uint64]) -> None:
        """Add (N,) values, with `fill` for NaN, and the hashes of their rows."""
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
            # Values of equal hashes (columns that share a scaler) are kept or dropped together.
            self.limit = int(np.partition(self.hashes, self.size - 1)[self.size - 1])
            kept = self.hashes <= np.uint64(self.limit)
            self.hashes, self.values = self.hashes[kept], self.values[kept]

    def quantiles(self, low: float, high: float) -> Quantiles:
        """The ranks of `KNOTS` values; `low` and `high` are the minimum and maximum of all rows."""
        self._cut()
        if not len(self.values):
            return Quantiles(values=(0.0,), ranks=(0.5,))
        levels = np.linspace(0, 1, KNOTS)
        knots = np.quantile(self.values, levels, method="inverted_cdf")
        knots[0], knots[-1] = low, high
        values, first, counts = np.unique(knots, return_index=True, return_counts=True)
        ranks = (levels[first] + levels[first + counts - 1]) / 2
        return Quantiles(values=tuple(values.tolist()), ranks=tuple(ranks.tolist()))
