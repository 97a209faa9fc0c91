"""The two passes of `prepare` over the rows: collect statistics, then encode.

They run on threads of this process, or on workers: processes of this machine or of others that see
the raw files and the data set's folder.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tossctr.data.encoder import Encoder
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.encoding.statistics import Stats
from tossctr.data.executor import Executor, LocalExecutor
from tossctr.data.preparing.splits import SPLITS, Chunk, Span, Splits
from tossctr.data.rows import EncodedRows
from tossctr.data.store import StoreWriter, open_store
from tossctr.errors import UserError
from tossctr.files import remove, writing

SPAN_ROWS = 1 << 16  # least rows of a worker's task, rounded up to the end of a row group

Encoded = dict[str, tuple[EncodedRows, EncodingReport]]  # by split, without empty ones


class Passes(Protocol):
    """Both passes, each a stream of results in file order."""

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        """Statistics of training rows, and the number of rows read for each.

        Args:
            empty: statistics of no rows, with the columns to count.
        """
        ...

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        """Encoded rows of both splits, each valid until the next is requested.

        Args:
            encoder: fit on the training rows.
            folder: for temporary files.
        """
        ...


@dataclass(frozen=True)
class LocalPasses:
    """One reader, and threads that process what it reads."""

    splits: Splits
    batch_rows: int

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        chunks = self.splits.chunks(("train",), self.batch_rows)
        return LocalExecutor().map(partial(_count, empty), chunks)

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        chunks = self.splits.chunks(SPLITS, self.batch_rows)
        return LocalExecutor().map(partial(_encode, encoder), chunks)


class WorkerPasses:
    """Each worker reads spans of rows, and returns their statistics or writes a store of them.

    Raises:
        UserError: the format of a file does not allow reading from its middle.
    """

    def __init__(self, splits: Splits, batch_rows: int, executor: Executor) -> None:
        self._splits, self._batch_rows, self._executor = splits, batch_rows, executor
        self._spans = [piece for span in splits.spans(SPLITS) for piece in _pieces(splits, span)]
        if self._spans and splits.depend_on_labels:
            seen = (0, 0)
            found = list(executor.map(partial(_count_labels, splits, batch_rows), self._spans))
            for number, (zeros, ones) in enumerate(found):
                self._spans[number] = replace(self._spans[number], seen=seen)
                seen = (seen[0] + zeros, seen[1] + ones)

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        count = partial(_count_span, self._splits, self._batch_rows, empty)
        return self._executor.map(count, [span for span in self._spans if span.split != "valid"])

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        shards = folder / "shards"
        remove(shards)  # left by a killed process
        write = partial(_write_shard, self._splits, self._batch_rows, encoder, shards)
        previous: Path | None = None
        with closing(self._executor.map(write, self._spans)) as written:
            for shard, reports in written:
                yield {
                    split: (open_store(shard / split), report) for split, report in reports.items()
                }
                # Only now is the previous one no longer mapped: NFS keeps files that are open.
                if previous is not None:
                    remove(previous)
                previous = shard


def _pieces(splits: Splits, span: Span) -> Iterator[Span]:
    """The span, cut at the ends of row groups."""
    source = splits.sources[span.source]
    if source.ends is None:
        raise UserError(
            "workers cannot share a file of this format",
            file=source.path,
            remedy="write it as Parquet, or prepare it with --engine local",
        )
    last = source.ends[-1] if source.ends else 0
    stop = last if span.stop is None else min(span.stop, last)
    start = span.start
    while start < stop:
        end = source.ends[bisect_left(source.ends, min(start + SPAN_ROWS, stop))]
        yield replace(span, start=start, stop=min(end, stop))
        start = end


def _count(empty: Stats, chunk: Chunk) -> tuple[Stats, int]:
    stats = empty.like()
    batch, rows, label = chunk.of("train")
    stats.update(batch, file=chunk.file, rows=rows, label=label)
    return stats, chunk.batch.num_rows


def _encode(encoder: Encoder, chunk: Chunk) -> Encoded:
    encoded = {}
    for split in SPLITS:
        batch, rows, label = chunk.of(split)
        if len(rows):
            report = EncodingReport()
            found = encoder.transform(batch, file=chunk.file, rows=rows, label=label, report=report)
            encoded[split] = (found, report)
    return encoded


def _count_labels(splits: Splits, batch_rows: int, span: Span) -> tuple[int, int]:
    ones = rows = 0
    for label in splits.labels(span, batch_rows):
        ones += int(label.sum())
        rows += len(label)
    return rows - ones, ones


def _count_span(splits: Splits, batch_rows: int, empty: Stats, span: Span) -> tuple[Stats, int]:
    total, read = empty.like(), 0
    for chunk in splits.read(span, batch_rows):
        stats, rows = _count(empty, chunk)
        total.merge(stats)
        read += rows
    return total, read


def _write_shard(
    splits: Splits, batch_rows: int, encoder: Encoder, folder: Path, span: Span
) -> tuple[Path, dict[str, EncodingReport]]:
    """Write stores of a span's rows, by split. The folder's name is unique: two workers write the
    same span if one was wrongly thought lost."""
    shard = folder / f"{span.source}-{span.start:012d}-{uuid4().hex}"
    reports: dict[str, EncodingReport] = {}
    with writing(shard), ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        for chunk in splits.read(span, batch_rows):
            for split, (rows, report) in _encode(encoder, chunk).items():
                if split not in writers:
                    writer = StoreWriter(
                        shard / split, encoder.features, encoder.hash, durable=False
                    )
                    writers[split] = stack.enter_context(writer)
                    reports[split] = EncodingReport()
                writers[split].append(rows)
                reports[split].merge(report)
    return shard, reports
