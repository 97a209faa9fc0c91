"""A selection of rows as `EncodedRows` without a copy, for folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import DTypeLike

from tossctr.data.rows import Array, EncodedRows, RaggedArray


def subset(rows: EncodedRows, chosen: Array) -> EncodedRows:
    """The rows `chosen` (n,), in that order, read on access.

    Memory: row numbers, labels, and offsets of each sequence: 12 bytes per row, and 8 per sequence.
    """
    chosen = np.asarray(chosen, np.int64)

    def lazy(array: Array) -> Array:
        return cast(Array, _Chosen(array, chosen))

    return replace(
        rows,
        categorical=lazy(rows.categorical),
        numeric=lazy(rows.numeric),
        times=lazy(rows.times),
        meta=lazy(rows.meta),
        sequences={n: _RaggedSubset.of(r, chosen) for n, r in rows.sequences.items()},
        time_sequences={n: _RaggedSubset.of(r, chosen) for n, r in rows.time_sequences.items()},
        label=None if rows.label is None else np.asarray(rows.label[chosen]),
    )


class _Chosen:
    """Selected rows of an array (N, ...), indexed like an array; the result is a copy."""

    def __init__(self, array: Array, chosen: Array) -> None:
        self.array, self.chosen = array, chosen
        self.dtype, self.ndim = array.dtype, array.ndim
        self.shape = (len(chosen), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        return self.array[(self.chosen[first], *rest)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self.array[self.chosen], dtype)


@dataclass(frozen=True)
class _RaggedSubset(RaggedArray):
    """`values` are a view that is cut by slices of `offsets`; `take` reads the whole set's."""

    whole: RaggedArray
    chosen: Array

    @classmethod
    def of(cls, whole: RaggedArray, chosen: Array) -> _RaggedSubset:
        starts = np.asarray(whole.offsets[chosen])
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(whole.offsets[chosen + 1] - starts, out=offsets[1:])
        values = _Values(whole.values, starts, offsets)
        return cls(cast(Array, values), offsets, whole, chosen)

    def take(
        self, rows: Array, max_len: int | None = None, truncating: Literal["pre", "post"] = "pre"
    ) -> RaggedArray:
        return self.whole.take(self.chosen[rows], max_len, truncating)


class _Values:
    """The concatenated events of selected rows, read by slices."""

    def __init__(self, values: Array, starts: Array, offsets: Array) -> None:
        self.values, self.starts, self.offsets = values, starts, offsets
        self.dtype, self.ndim = values.dtype, 1
        self.shape = (int(offsets[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> Array:
        first, last, step = key.indices(len(self))
        if step != 1:
            raise IndexError("events are read by slices without a step")
        place = np.arange(first, last)
        row = np.searchsorted(self.offsets, place, side="right") - 1
        return np.asarray(self.values[self.starts[row] + place - self.offsets[row]])
