"""The training and the validation rows of a data set, as chunks in file order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoding.decode import labels
from tossctr.data.preparing.split import RandomSplit
from tossctr.data.sources import Source
from tossctr.data.where import Where

PARTS = ("train", "valid")


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file; `valid` (B,) says which are for validation."""

    batch: pa.RecordBatch
    first_row: int
    file: Path
    valid: NDArray[np.bool_]

    def of(self, part: str) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        """The rows of one part, and where they stand in the file."""
        chosen = self.valid if part == "valid" else ~self.valid
        rows = self.first_row + np.flatnonzero(chosen)
        return (self.batch if chosen.all() else self.batch.filter(pa.array(chosen))), rows


@dataclass(frozen=True)
class Plan:
    """Where training and validation rows are.

    Attributes:
        dataset: says how validation rows are taken.
        sources: the file of `train`, and that of `valid` where there is one.
        train_rows, valid_rows: how many are to be read (`train_rows` counts those of a random split
            too); None where only reading the file tells.
    """

    dataset: DatasetConfig
    sources: dict[str, Source]
    train_rows: int | None
    valid_rows: int | None

    @classmethod
    def of(cls, dataset: DatasetConfig, sources: dict[str, Source]) -> Plan:
        """Counts the rows where the split needs it."""
        source, limit = sources["train"], dataset.max_rows
        if "valid" in sources:
            return cls(dataset, sources, _least(source.num_rows, limit), sources["valid"].num_rows)
        if dataset.valid_split.method != "time":
            return cls(dataset, sources, _least(source.num_rows, limit), 0)
        rows = _least(source.count_rows(), limit) or 0
        valid = max(1, round(rows * dataset.valid_split.fraction))
        return cls(dataset, sources, max(rows - valid, 0), min(valid, rows))

    @property
    def rows(self) -> int | None:
        """All rows to be read, where known."""
        if self.train_rows is None or self.valid_rows is None:
            return None
        return self.train_rows + self.valid_rows

    def chunks(self, parts: tuple[str, ...], batch_rows: int) -> Iterator[Chunk]:
        """The rows of these parts; where both come from one mixed range, all of it."""
        train, limit = self.sources["train"], self.dataset.max_rows
        if "valid" in self.sources:
            yield from _read(train, 0, limit, batch_rows, valid=False)
            if "valid" in parts:
                yield from _read(self.sources["valid"], 0, None, batch_rows, valid=True)
        elif self.dataset.valid_split.method == "time":
            assert self.train_rows is not None
            assert self.valid_rows is not None
            yield from _read(train, 0, self.train_rows, batch_rows, valid=False)
            if "valid" in parts:
                end = self.train_rows + self.valid_rows
                yield from _read(train, self.train_rows, end, batch_rows, valid=True)
        else:
            split, name = RandomSplit(self.dataset.valid_split), self.dataset.label_col.name
            for chunk in _read(train, 0, limit, batch_rows, valid=False):
                label = labels(chunk.batch, name, Where(chunk.first_row, chunk.file))
                yield replace(chunk, valid=split.next(label))


def _least(rows: int | None, limit: int | None) -> int | None:
    known = [n for n in (rows, limit) if n is not None]
    return min(known) if rows is not None else None


def _read(
    source: Source, start: int, stop: int | None, batch_rows: int, *, valid: bool
) -> Iterator[Chunk]:
    row = start
    for batch in source.batches(start=start, stop=stop, batch_rows=batch_rows):
        yield Chunk(batch, row, source.path, np.full(batch.num_rows, valid))
        row += batch.num_rows
