"""Parquet files as streams of Arrow batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tossctr.data.plain_types import plain, plain_type
from tossctr.data.sources import (
    BATCH_ROWS,
    VOCABULARY,
    between,
    require_columns,
    short,
    unreadable,
)
from tossctr.errors import UserError
from tossctr.location import Location, opened

_READ_BYTES = 256 * 1024  # read buffer of each Parquet column chunk
_REQUEST_BYTES = 1 << 20  # the same where each read is a request to an object store
_DECODED_BYTES = 64 << 20
_SMALL_BYTES = 16 << 10  # of a chunk: 4096 times so much is no more than that
_BOMB_BYTES, _BOMB_RATIO = 512 << 20, 500
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 8}  # in memory; others 8


@dataclass(frozen=True)
class _RowBytes:
    """`size`: mean bytes of a column's row in memory, as far as the metadata tell; `repeated`: the
    path of texts that may be in the file once and in memory for each row."""

    size: float
    repeated: str | None = None


def _mean_row_bytes(group: pq.RowGroupMetaData) -> dict[str, _RowBytes]:
    rows, found = max(group.num_rows, 1), dict[str, _RowBytes]()
    for index in range(group.num_columns):
        chunk = group.column(index)
        name = chunk.path_in_schema.split(".")[0]
        size = chunk.num_values * _WIDTHS.get(chunk.physical_type, 8)
        if chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            size += chunk.total_uncompressed_size
        before = found[name].size if name in found else 0.0
        repeats = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
        large = chunk.total_uncompressed_size > _SMALL_BYTES
        path = chunk.path_in_schema if repeats and large else None
        found[name] = _RowBytes(before + size / rows, path)
    return found


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), batch.schema.names)


class ParquetSource:
    """A Parquet file, read through small buffers whatever the size of its row groups; its columns
    come as `plain_types` has them."""

    has_types = True

    def __init__(self, path: Location, columns: Iterable[str]) -> None:
        self.path = self.file = path
        with self._open() as file:
            self.schema = pa.schema([(f.name, plain_type(f.type)) for f in file.schema_arrow])
            self.names: tuple[str, ...] = tuple(self.schema.names)
            made_with = (file.schema_arrow.metadata or {}).get(VOCABULARY.encode())
            self.vocabulary = None if made_with is None else made_with.decode(errors="replace")
            self._group_rows = [
                file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
            ]
        self.columns = tuple(columns) or self.names
        self._decoded: dict[int, dict[str, _RowBytes]] = {}  # by row group and column

    @property
    def num_rows(self) -> int:
        return sum(self._group_rows)

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self._group_rows))

    def count_rows(self) -> int:
        return self.num_rows

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        columns = self.columns if columns is None else columns
        require_columns(self, columns)
        stop = self.num_rows if stop is None else min(stop, self.num_rows)
        groups, skipped, position = [], 0, 0
        for index, rows in enumerate(self._group_rows):
            if position + rows <= start:
                skipped += rows
            elif position < stop:
                groups.append(index)
            position += rows
        if start >= stop:
            return
        with self._open() as file:
            try:
                least = (self._rows_at_once(file.metadata, g, columns) for g in groups)
                rows = min([batch_rows, *least])
                stream = map(
                    _plain, file.iter_batches(rows, row_groups=groups, columns=list(columns))
                )
                wanted = (start - skipped, stop - skipped)
                yield from between(stream, *wanted, columns, batch_rows, self.path, skipped)
            except (pa.ArrowException, OSError) as error:
                raise unreadable(self.path, error) from error

    def _rows_at_once(self, metadata: pq.FileMetaData, group: int, columns: Sequence[str]) -> int:
        """How many rows of a row group are some 64 MB when decoded: a small file can hold
        gigabytes of equal events."""
        if group not in self._decoded:
            self._refuse_bomb(metadata.row_group(group), columns)
            self._decoded[group] = _mean_row_bytes(metadata.row_group(group))
        for name in columns:
            repeated = self._decoded[group][name].repeated
            if repeated is not None:
                longest = self._longest(group, name, repeated)
                self._decoded[group][name] = _RowBytes(longest)
        total = sum(self._decoded[group][name].size for name in columns)
        return max(1, int(_DECODED_BYTES / max(total, 1)))

    def _refuse_bomb(self, group: pq.RowGroupMetaData, columns: Sequence[str]) -> None:
        """A page is decompressed whole, and may be all of a column chunk.

        Raises:
            UserError: a chunk that is far larger than any column of a log compresses from.
        """
        for index in range(group.num_columns):
            chunk = group.column(index)
            size, packed = chunk.total_uncompressed_size, max(chunk.total_compressed_size, 1)
            name = chunk.path_in_schema.split(".")[0]
            if name in columns and size > _BOMB_BYTES and size > _BOMB_RATIO * packed:
                raise UserError(
                    f"{packed / 1e6:,.1f} MB that decompress to {size / 1e6:,.0f} MB",
                    file=self.path,
                    column=name,
                    remedy="write it in smaller row groups, or with a dictionary",
                )

    def _longest(self, group: int, column: str, path: str) -> float:
        """The longest text of a column's dictionary in a row group, in bytes."""
        mean = self._decoded[group][column].size
        with self._open([path]) as file:
            first = next(file.iter_batches(1, row_groups=[group], columns=[column])).column(0)
        if not pa.types.is_dictionary(first.type):
            return mean
        return max(mean, float(pc.max(pc.binary_length(first.dictionary)).as_py() or 0))

    @contextmanager
    def _open(self, as_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        # Without a buffer size, a column chunk (2 GB of sequences in a group of a million rows)
        # would be read whole.
        with ExitStack() as stack:
            try:
                local = isinstance(self.path, Path)
                file = pq.ParquetFile(
                    self.path if local else stack.enter_context(opened(str(self.path))),
                    buffer_size=_READ_BYTES if local else _REQUEST_BYTES,
                    pre_buffer=False,
                    read_dictionary=list(as_dictionary),
                )
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"not a readable Parquet file: {short(error)}",
                    file=self.path,
                    remedy="write it again, or give a file named .parquet, .csv or .tsv",
                ) from error
            yield stack.enter_context(file)
