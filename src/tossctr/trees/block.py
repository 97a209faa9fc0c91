"""A block of consecutive rows: its ids, events, and keys of rate tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.rows import EncodedRows, RaggedArray

Array = NDArray[Any]


@dataclass(frozen=True)
class RateTable:
    """A table of click log-odds by the ids of a field, or by their pairs with a target field's ids.

    Attributes:
        source: the field, or `<sequence>.last<k>`.
        slot: the target field; None for no pairs.
        keys: the number of ids or pairs.
        slots: the number of the target field's ids; 1 for no pairs.
    """

    source: str
    slot: str | None
    keys: int
    slots: int

    @property
    def name(self) -> str:
        return self.source if self.slot is None else f"{self.source} x {self.slot}"


class Block:
    """Rows start..stop of a data set, with their columns read once."""

    def __init__(self, rows: EncodedRows, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.rows = slice(start, stop)
        self._all = rows
        self.categorical = np.asarray(rows.categorical[self.rows])
        self.numeric = np.asarray(rows.numeric[self.rows])

    def events(self, name: str) -> tuple[Array, Array, Array]:
        """Values (M,) of a sequence, and start and end of each row's events, cut to `max_len`."""
        ragged: RaggedArray = self._all.sequences[name]
        spec = self._all.features[name]
        bounds = np.asarray(ragged.offsets[self.start : self.stop + 1])
        first, last = int(bounds[0]), int(bounds[-1])
        values = np.asarray(ragged.values[first:last])
        starts, ends = bounds[:-1] - first, bounds[1:] - first
        if spec.max_len is not None and spec.truncating == "pre":
            starts = np.maximum(starts, ends - spec.max_len)
        elif spec.max_len is not None:
            ends = np.minimum(ends, starts + spec.max_len)
        return values, starts, ends

    def ids(self, source: str) -> Array:
        """(B,) ids of a categorical field, or of a sequence's k-th newest event (`name.last<k>`); 0
        in rows with fewer events."""
        if source in self._all.features:
            column = self._all.features.names("categorical").index(source)
            return self.categorical[:, column].astype(np.int64)
        name, k = source.rsplit(".last", 1)
        values, starts, ends = self.events(name)
        present = ends - starts >= int(k)
        out = np.zeros(self.stop - self.start, np.int64)
        out[present] = values[ends[present] - int(k)]
        return out

    def slot(self, rate: RateTable) -> Array:
        """(B,) ids of the target field; zeros for no pairs."""
        if rate.slot is None:
            return np.zeros(self.stop - self.start, np.int64)
        return self.ids(rate.slot)

    def keys(self, rate: RateTable) -> Array:
        """(B,) row numbers of the table."""
        keys: Array = self.ids(rate.source) * rate.slots + self.slot(rate)
        return keys


def summary(values: Array, starts: Array, ends: Array) -> Array:
    """(B, 2) the newest number and the mean of each row; NaN without events."""
    out = np.full((len(starts), 2), np.nan, np.float32)
    present = ends > starts
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    out[present, 0] = values[ends[present] - 1]
    out[present, 1] = (sums[ends] - sums[starts])[present] / (ends - starts)[present]
    return out
