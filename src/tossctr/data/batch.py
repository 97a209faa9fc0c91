"""`Batch`: the only thing that models see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """B concatenated sequences, oldest event first: row b is values[offsets[b]:offsets[b+1]].

    Attributes:
        values: (M,) ids (int64) or numbers (float).
        offsets: (B + 1,) int64, from 0 to M.
        max_length: longest row, kept on the host to avoid a device synchronization.
    """

    values: Tensor
    offsets: Tensor
    max_length: int

    @property
    def lengths(self) -> Tensor:
        """(B,) int64."""
        return self.offsets.diff()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Ragged:
        return Ragged(
            self.values.to(device, non_blocking=non_blocking),
            self.offsets.to(device, non_blocking=non_blocking),
            self.max_length,
        )

    def narrow(self, start: int, stop: int) -> Ragged:
        """Rows start..stop; the values are a view."""
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        longest = int(offsets.diff().max()) if stop > start else 0
        return Ragged(self.values[first:last], offsets - first, longest)

    def pin_memory(self) -> Ragged:
        return Ragged(self.values.pin_memory(), self.offsets.pin_memory(), self.max_length)


@dataclass(frozen=True)
class Batch:
    """B encoded rows, columns in feature-map order.

    Attributes:
        categorical: (B, n_categorical) int64; 0 is PAD, the last index of a vocabulary is OOV.
        numeric: (B, n_numeric) float32, filled and scaled.
        sequences: ragged id sequences (int64) and number sequences (float32) by name.
        times: (B,) float64 timestamps by name.
        time_sequences: ragged float64 timestamps of sequences by name.
        meta: (B,) int64 by name, for metrics; never a model input.
        label: (B,) float32, or None when scoring.
        row: (B,) int64, the rows' positions in their data set, or None.
    """

    categorical: Tensor
    numeric: Tensor
    sequences: dict[str, Ragged] = field(default_factory=dict)
    times: dict[str, Tensor] = field(default_factory=dict)
    time_sequences: dict[str, Ragged] = field(default_factory=dict)
    meta: dict[str, Tensor] = field(default_factory=dict)
    label: Tensor | None = None
    row: Tensor | None = None

    def __len__(self) -> int:
        return len(self.categorical)

    @property
    def labels(self) -> Tensor:
        """(B,) float32.

        Raises:
            ValueError: the rows have none.
        """
        if self.label is None:
            raise ValueError("the rows have no labels")
        return self.label

    @property
    def positions(self) -> Tensor:
        """(B,) int64, the rows' positions in their data set.

        Raises:
            ValueError: they are unknown.
        """
        if self.row is None:
            raise ValueError("the rows' positions are unknown")
        return self.row

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on another device (Lightning calls this too)."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda x: x.pin_memory())

    def event_counts(self) -> Tensor:
        """(B,) int64 events of each row: its longest sequence, and one for the row itself."""
        counts = torch.ones(len(self), dtype=torch.int64, device=self.categorical.device)
        for ragged in self.sequences.values():
            counts = torch.maximum(counts, ragged.lengths + 1)
        return counts

    def split(self, max_events: int) -> list[Batch]:
        """Consecutive micro-batches of at most `max_events` events; a longer row is one alone.

        Call it while the batch is on the CPU, where reading lengths needs no synchronization.
        """
        ends = self.event_counts().cumsum(0)
        micro_batches, start, spent = [], 0, 0
        while start < len(self):
            stop = int(torch.searchsorted(ends, spent + max_events, right=True))
            stop = max(stop, start + 1)
            micro_batches.append(self._narrow(start, stop))
            start, spent = stop, int(ends[stop - 1])
        return micro_batches

    def _narrow(self, start: int, stop: int) -> Batch:
        if start == 0 and stop == len(self):
            return self
        return self._map(
            lambda x: x.narrow(start, stop) if isinstance(x, Ragged) else x[start:stop]
        )

    def _map(self, f: Callable[[Any], Any]) -> Batch:
        changed: dict[str, Any] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, dict):
                changed[spec.name] = {k: f(v) for k, v in value.items()}
            elif value is not None:
                changed[spec.name] = f(value)
        return replace(self, **changed)
