"""`EncodedRows`: encoded rows as NumPy arrays, in memory or memory-mapped.

The encoder returns them, `open_store` maps them from files, and the loader takes batches of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError

Array = NDArray[Any]


@dataclass(frozen=True)
class RaggedArray:
    """N sequences laid end to end, oldest event first: row n is values[offsets[n]:offsets[n+1]].

    values: (M,) unsigned ids, float32 numbers or float64 times; offsets: (N + 1,) int64.
    """

    values: Array
    offsets: Array

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)

    def take(
        self, rows: Array, max_len: int | None = None, truncating: Literal["pre", "post"] = "pre"
    ) -> RaggedArray:
        """A selection of rows in memory, each cut to its `max_len` newest (`pre`) or oldest
        (`post`) events."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        lengths = ends - starts
        if max_len is not None:
            lengths = np.minimum(lengths, max_len)
            if truncating == "pre":
                starts = ends - lengths
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        where = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return RaggedArray(np.asarray(self.values[where]), offsets)

    def to_torch(self) -> Ragged:
        """The sequences as tensors, ids in int64."""
        values = self.values.astype(np.int64) if self.values.dtype.kind == "u" else self.values
        longest = int(self.lengths.max(initial=0))
        return Ragged(torch.from_numpy(values), torch.from_numpy(self.offsets), longest)


@dataclass(frozen=True)
class EncodedRows:
    """N encoded rows, columns in feature-map order.

    Attributes:
        features: the fields.
        categorical: (N, n_categorical) ids in the smallest unsigned dtype for all of them.
        numeric: (N, n_numeric) float32, NaN if missing (`take` replaces it by `Field.missing`).
        sequences: ids or float32 numbers by name.
        times: (N, n_time) float64.
        time_sequences: float64 by name.
        meta: (N, n_groups) int64, the raw values of `features.groups`.
        label: (N,) float32, or None.
    """

    features: FeatureMap
    categorical: Array
    numeric: Array
    sequences: Mapping[str, RaggedArray] = field(default_factory=dict)
    times: Array = field(default_factory=lambda: np.empty((0, 0), np.float64))
    time_sequences: Mapping[str, RaggedArray] = field(default_factory=dict)
    meta: Array = field(default_factory=lambda: np.empty((0, 0), np.int64))
    label: Array | None = None

    def __len__(self) -> int:
        return len(self.categorical)

    @property
    def labels(self) -> Array:
        """(N,) float32.

        Raises:
            ValueError: the rows have none.
        """
        if self.label is None:
            raise ValueError("the rows have no labels")
        return self.label

    def groups(self, name: str) -> Array:
        """(N,) int64 the raw values of a field that `group_id` names: an integer or the hash of a
        text, `NO_GROUP` where missing.

        Raises:
            UserError: they were not kept when the rows were prepared.
        """
        if name not in self.features.groups or self.meta.shape[1] != len(self.features.groups):
            raise UserError(
                f"the raw values of {name} were not kept", key="group_id", value=name,
                remedy="prepare again, by the command that trains this experiment",
            )  # fmt: skip
        return self.meta[:, self.features.groups.index(name)]

    def event_counts(self) -> Array:
        """(N,) int64 events of each row: its longest sequence, cut to `max_len`, and one for the
        row itself."""
        counts = np.ones(len(self), np.int64)
        for name, ragged in self.sequences.items():
            limit = self.features[name].max_len
            own = ragged.lengths if limit is None else np.minimum(ragged.lengths, limit)
            counts = np.maximum(counts, own + 1)
        return counts

    def ids(self, name: str) -> Array:
        """(N,) the ids of a categorical field."""
        return self.categorical[:, self.features.names("categorical").index(name)]

    def numbers(self, rows: Array) -> Array:
        """(n, n_numeric) float32 of a selection of rows, missing values replaced by
        `Field.missing`."""
        found = np.array(self.numeric[rows], np.float32)
        for j, name in enumerate(self.features.names("numeric")):
            fill = self.features[name].missing
            if fill is not None:
                column = found[:, j]
                column[np.isnan(column)] = fill
        return found

    def take(self, rows: Array) -> Batch:
        """A selection of rows as a `Batch`, sequences cut to their field's `max_len`."""

        def ragged(name: str, array: RaggedArray) -> Ragged:
            spec = self.features[name]
            return array.take(rows, spec.max_len, spec.truncating).to_torch()

        times, meta = self.features.names("time"), self.features.groups
        return Batch(
            categorical=torch.from_numpy(self.categorical[rows].astype(np.int64)),
            numeric=torch.from_numpy(self.numbers(rows)),
            sequences={name: ragged(name, a) for name, a in self.sequences.items()},
            times={n: torch.from_numpy(self.times[rows, i]) for i, n in enumerate(times)},
            time_sequences={name: ragged(name, a) for name, a in self.time_sequences.items()},
            meta={
                n: torch.from_numpy(self.meta[rows, i])
                for n, i in zip(meta, range(self.meta.shape[1]), strict=False)
            },
            label=None if self.label is None else torch.from_numpy(self.label[rows]),
            row=torch.from_numpy(np.asarray(rows, np.int64)),
        )
