"""What `prepare` does to rows: here, on threads, or on workers that read their rows themselves.

A worker is any process, on this machine or another, that sees the raw files and the folder of the
stores.
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
from tossctr.data.preparing.parallel import Spread, ordered_map
from tossctr.data.preparing.parts import PARTS, Chunk, Plan, Span
from tossctr.data.rows import EncodedRows
from tossctr.data.store import StoreWriter, open_store
from tossctr.errors import UserError
from tossctr.files import remove, writing

SPAN_ROWS = 1 << 16  # of a worker's task: at least so many, then up to the end of the row group

Encoded = dict[str, tuple[EncodedRows, EncodingReport]]  # by part, for those that have rows


class Work(Protocol):
    """The two passes of `prepare` over the rows of a plan."""

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        """Of training rows, each with the number of rows read; `empty` says what is counted."""
        ...

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        """The rows of both parts in file order, until the next is asked for; `folder` is for what
        has to be written on the way."""
        ...


@dataclass(frozen=True)
class Here:
    """One reader, and threads for what it reads."""

    plan: Plan
    batch_rows: int

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        chunks = self.plan.chunks(("train",), self.batch_rows)
        return ordered_map(partial(_count, empty), chunks)

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        return ordered_map(partial(_encode, encoder), self.plan.chunks(PARTS, self.batch_rows))


class OnWorkers:
    """Each worker reads spans of rows, and returns their statistics or writes a store of them.

    Raises:
        UserError: a file whose rows are only known by reading it from the start.
    """

    def __init__(self, plan: Plan, batch_rows: int, spread: Spread) -> None:
        self._plan, self._batch_rows, self._spread = plan, batch_rows, spread
        self._pieces = [piece for span in plan.spans(PARTS) for piece in _pieces(plan, span)]
        if self._pieces and plan.splits_by_label:
            seen = (0, 0)
            found = list(spread(partial(_count_labels, plan, batch_rows), self._pieces))
            for number, (zeros, ones) in enumerate(found):
                self._pieces[number] = replace(self._pieces[number], seen=seen)
                seen = (seen[0] + zeros, seen[1] + ones)

    def statistics(self, empty: Stats) -> Generator[tuple[Stats, int], None, None]:
        work = partial(_count_span, self._plan, self._batch_rows, empty)
        return self._spread(work, [piece for piece in self._pieces if piece.part != "valid"])

    def encoded(self, encoder: Encoder, folder: Path) -> Generator[Encoded, None, None]:
        shards = folder / "shards"
        remove(shards)  # of a process that was killed
        work = partial(_write_shard, self._plan, self._batch_rows, encoder, shards)
        taken: Path | None = None
        with closing(self._spread(work, self._pieces)) as written:
            for shard, reports in written:
                yield {
                    part: (open_store(shard / part, verify=False), report)
                    for part, report in reports.items()
                }
                # The one before, which nobody maps any more: NFS keeps what is still open.
                if taken is not None:
                    remove(taken)
                taken = shard


def _pieces(plan: Plan, span: Span) -> Iterator[Span]:
    """The span, cut at the ends of row groups."""
    source = plan.sources[span.source]
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
    done = {}
    for part in PARTS:
        batch, rows, label = chunk.of(part)
        if len(rows):
            report = EncodingReport()
            encoded = encoder.transform(
                batch, file=chunk.file, rows=rows, label=label, report=report
            )
            done[part] = (encoded, report)
    return done


def _count_labels(plan: Plan, batch_rows: int, span: Span) -> tuple[int, int]:
    ones = rows = 0
    for label in plan.labels(span, batch_rows):
        ones += int(label.sum())
        rows += len(label)
    return rows - ones, ones


def _count_span(plan: Plan, batch_rows: int, empty: Stats, span: Span) -> tuple[Stats, int]:
    total, read = empty.like(), 0
    for chunk in plan.read(span, batch_rows):
        stats, rows = _count(empty, chunk)
        total.merge(stats)
        read += rows
    return total, read


def _write_shard(
    plan: Plan, batch_rows: int, encoder: Encoder, folder: Path, span: Span
) -> tuple[Path, dict[str, EncodingReport]]:
    """Stores of a span's rows, by part, in a folder of its own: where a worker is thought to be
    lost and is not, two write the same span."""
    shard = folder / f"{span.source}-{span.start:012d}-{uuid4().hex}"
    reports: dict[str, EncodingReport] = {}
    with writing(shard), ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        for chunk in plan.read(span, batch_rows):
            for part, (rows, report) in _encode(encoder, chunk).items():
                if part not in writers:
                    writer = StoreWriter(
                        shard / part, encoder.features, encoder.hash, durable=False
                    )
                    writers[part] = stack.enter_context(writer)
                    reports[part] = EncodingReport()
                writers[part].append(rows)
                reports[part].merge(report)
    return shard, reports
