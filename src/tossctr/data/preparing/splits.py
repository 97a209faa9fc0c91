"""The training and validation splits of a data set, read as chunks in file order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoding.decode import labels
from tossctr.data.preparing.random_split import RandomSplit
from tossctr.data.sources.base import Source
from tossctr.data.where import RowsIn, Where

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file.

    Attributes:
        batch: B rows, as the source gives them.
        first_row: row number of the first one in the file.
        file: for errors.
        label: (B,) 0 or 1.
        valid: (B,) which rows are for validation.
    """

    batch: pa.RecordBatch
    first_row: int
    file: RowsIn
    label: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def of(self, split: str) -> tuple[pa.RecordBatch, NDArray[np.int64], NDArray[np.float32]]:
        """The rows of one split, their row numbers in the file, and their labels."""
        chosen = self.valid if split == "valid" else ~self.valid
        rows = self.first_row + np.flatnonzero(chosen)
        batch = self.batch if chosen.all() else self.batch.filter(pa.array(chosen))
        return batch, rows, self.label[chosen]


@dataclass(frozen=True)
class Span:
    """A range of rows of a source, which any process can read without the rows before it.

    Attributes:
        source: `train` or `valid`.
        start, stop: the rows; a `stop` of None is the end.
        split: which split the rows belong to; `both`: `valid_split` assigns each row.
        seen: for a stratified split, the number of rows of label 0 and of label 1 before `start`.
    """

    source: str
    start: int
    stop: int | None
    split: Literal["train", "valid", "both"]
    seen: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Splits:
    """Where the training and validation rows are.

    Attributes:
        dataset: its `valid_split` and `max_rows` choose the rows.
        sources: the file of `train`, and of `valid` if the data set has one.
        train_rows, valid_rows: rows to read (`train_rows` includes both splits of a random split);
            None if only reading the file tells.
    """

    dataset: DatasetConfig
    sources: dict[str, Source]
    train_rows: int | None
    valid_rows: int | None

    @classmethod
    def of(cls, dataset: DatasetConfig, sources: dict[str, Source]) -> Splits:
        """Counts the rows of the file if the split depends on them."""
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
        """All rows to read, if known."""
        if self.train_rows is None or self.valid_rows is None:
            return None
        return self.train_rows + self.valid_rows

    def spans(self, splits: tuple[str, ...]) -> list[Span]:
        """The row ranges that hold these splits."""
        limit = self.dataset.max_rows
        if "valid" in self.sources:
            train, valid = Span("train", 0, limit, "train"), Span("valid", 0, None, "valid")
        elif self.dataset.valid_split.method == "time":
            train = Span("train", 0, self.train_rows, "train")
            valid = Span("train", self.train_rows or 0, self.rows, "valid")
        else:
            return [Span("train", 0, limit, "both")]
        return [train, valid] if "valid" in splits else [train]

    def read(self, span: Span, batch_rows: int) -> Iterator[Chunk]:
        """The rows of a span, at most `batch_rows` at a time."""
        source, row = self.sources[span.source], span.start
        random = RandomSplit(self.dataset.valid_split, span.start, span.seen)
        for batch in source.batches(start=span.start, stop=span.stop, batch_rows=batch_rows):
            label = self._labels(batch, row, source)
            valid = np.full(len(label), span.split == "valid")
            if span.split == "both":
                valid = random.next(label)
            yield Chunk(batch, row, source.file, label, valid)
            row += len(label)

    def chunks(self, splits: tuple[str, ...], batch_rows: int) -> Iterator[Chunk]:
        """The rows of all `spans`."""
        for span in self.spans(splits):
            yield from self.read(span, batch_rows)

    @property
    def depend_on_labels(self) -> bool:
        """Whether the split of a row depends on the labels before it."""
        return "valid" not in self.sources and self.dataset.valid_split.method == "stratified"

    def labels(self, span: Span, batch_rows: int) -> Iterator[NDArray[np.float32]]:
        """The labels of a span, 0 or 1; no other column is read."""
        source, row = self.sources[span.source], span.start
        name = [self.dataset.label_col.name]
        for batch in source.batches(name, span.start, span.stop, batch_rows):
            yield self._labels(batch, row, source)
            row += batch.num_rows

    def _labels(self, batch: pa.RecordBatch, row: int, source: Source) -> NDArray[np.float32]:
        return labels(batch, self.dataset.label_col.name, Where(row, source.file))


def _least(rows: int | None, limit: int | None) -> int | None:
    return rows if rows is None or limit is None else min(rows, limit)
