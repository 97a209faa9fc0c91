"""Parquet files as streams of Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tossctr.config.schema import Dtype
from tossctr.data.encoding.lists import is_list
from tossctr.data.plain_types import plain, plain_type
from tossctr.data.sources.base import VOCABULARY, Source, between, short, unreadable
from tossctr.errors import UserError
from tossctr.location import Location, opened

_READ_BYTES = 256 * 1024  # read buffer of each Parquet column chunk
_REQUEST_BYTES = 1 << 20  # the same for an object store, where each read is a request
_DECODED_BYTES = 64 << 20
_SMALL_BYTES = 16 << 10  # per row: 4096 rows of that size fit in it
_HEAD_ROWS = 256  # searched for the first list that is not empty
_BOMB_BYTES, _BOMB_RATIO = 512 << 20, 500
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 8}  # bytes in memory; others 8


@dataclass(frozen=True)
class _RowBytes:
    """Estimated size of a column in a row group, from the metadata.

    Attributes:
        size: mean bytes per row in memory.
        values: mean number of values per row.
        repeated: path of dictionary-encoded text, which takes more memory than in the file.
        bomb: compressed and decompressed bytes of a chunk with an implausible ratio.
    """

    size: float
    values: float
    repeated: str | None = None
    bomb: tuple[int, int] | None = None


def _mean_row_bytes(group: pq.RowGroupMetaData) -> dict[str, _RowBytes]:
    rows, found = max(group.num_rows, 1), dict[str, _RowBytes]()
    for index in range(group.num_columns):
        chunk = group.column(index)
        name, unpacked = chunk.path_in_schema.split(".")[0], chunk.total_uncompressed_size
        before = found.get(name, _RowBytes(0, 0))
        size = chunk.num_values * _WIDTHS.get(chunk.physical_type, 8)
        if chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            size += unpacked
        values = chunk.num_values / rows
        repeats = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
        large = unpacked * max(values, 1) > _SMALL_BYTES
        packed = max(chunk.total_compressed_size, 1)
        explodes = unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * packed
        found[name] = _RowBytes(
            before.size + size / rows,
            values,
            chunk.path_in_schema if repeats and large else None,
            (packed, unpacked) if explodes else before.bomb,
        )
    return found


def _longest(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> dict[str, int]:
    """The longest text in bytes of each column's dictionary in a row group, without columns that
    have no dictionary in the first rows."""
    found: dict[str, int] = {}
    batches = file.iter_batches(1, row_groups=[group], columns=list(columns))
    for batch in islice(batches, _HEAD_ROWS):  # an empty list reads no dictionary
        texts = [c.flatten() if is_list(c) else c for c in batch.columns]
        for name, array in zip(batch.schema.names, texts, strict=True):
            if pa.types.is_dictionary(array.type) and len(array.dictionary):
                found[name] = pc.max(pc.binary_length(array.dictionary)).as_py() or 0
        if all(name in found or not is_list(batch.column(name)) for name in columns):
            break
    return found


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), batch.schema.names)


class ParquetSource(Source):
    """A Parquet file, read through small buffers even if row groups are large; columns are
    converted by `plain_types`."""

    def __init__(
        self, path: Location, types: Mapping[str, Dtype], na_values: Sequence[str] = ()
    ) -> None:
        self.path = path
        with self._open() as file:
            self.schema = pa.schema([(f.name, plain_type(f.type)) for f in file.schema_arrow])
            self.names = tuple(self.schema.names)
            made_with = (file.schema_arrow.metadata or {}).get(VOCABULARY.encode())
            self.vocabulary = None if made_with is None else made_with.decode(errors="replace")
            self._group_rows = [
                file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
            ]
        self.columns = tuple(types) or self.names
        self._decoded: dict[int, dict[str, _RowBytes]] = {}  # by row group and column

    @property
    def num_rows(self) -> int:
        return sum(self._group_rows)

    @property
    def ends(self) -> tuple[int, ...]:
        return tuple(accumulate(self._group_rows))

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        groups, skipped, position = [], 0, 0
        for index, rows in enumerate(self._group_rows):
            if position + rows <= start:
                skipped += rows
            elif position < stop:
                groups.append(index)
            position += rows
        with self._open() as file:
            try:
                rows = min(batch_rows, self._rows_at_once(file.metadata, groups, columns))
                stream = map(
                    _plain, file.iter_batches(rows, row_groups=groups, columns=list(columns))
                )
                wanted = (start - skipped, stop - skipped)
                yield from between(stream, *wanted, columns, batch_rows, self.path, skipped)
            except (pa.ArrowException, OSError) as error:
                raise unreadable(self.path, error) from error

    def _rows_at_once(
        self, metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str]
    ) -> int:
        """The number of rows that take about 64 MB when decoded: a small file can contain gigabytes
        of equal events."""
        repeated: dict[int, list[str]] = {}
        for group in groups:
            if group not in self._decoded:
                self._decoded[group] = _mean_row_bytes(metadata.row_group(group))
            self._refuse_bomb(group, columns)
            of = self._decoded[group]
            if names := [name for name in columns if of[name].repeated is not None]:
                repeated[group] = names
        if repeated:
            # Opened once, with the footer already read, as there may be thousands of row groups.
            paths = {
                str(self._decoded[g][n].repeated) for g, names in repeated.items() for n in names
            }
            with self._open(sorted(paths), metadata) as file:
                for group, names in repeated.items():
                    of, longest = self._decoded[group], _longest(file, group, names)
                    for name in names:
                        text = longest.get(name, 0) * of[name].values
                        of[name] = _RowBytes(max(of[name].size, text), of[name].values)
        largest = max(sum(self._decoded[g][name].size for name in columns) for g in groups)
        return max(1, int(_DECODED_BYTES / max(largest, 1)))

    def _refuse_bomb(self, group: int, columns: Sequence[str]) -> None:
        """Check the compression ratio, as a page, up to a whole column chunk, is decompressed at
        once.

        Raises:
            UserError: it is implausible.
        """
        for name in columns:
            bomb = self._decoded[group][name].bomb
            if bomb is not None:
                raise UserError(
                    f"{bomb[0] / 1e6:,.1f} MB that decompress to {bomb[1] / 1e6:,.0f} MB",
                    file=self.path,
                    column=name,
                    remedy="write it in smaller row groups, or with a dictionary",
                )

    @contextmanager
    def _open(
        self, as_dictionary: Sequence[str] = (), metadata: pq.FileMetaData | None = None
    ) -> Iterator[pq.ParquetFile]:
        # Without a buffer size, a column chunk (2 GB of sequences in a group of a million rows)
        # would be read completely.
        with ExitStack() as stack:
            try:
                local = isinstance(self.path, Path)
                file = pq.ParquetFile(
                    self.path if local else stack.enter_context(opened(str(self.path))),
                    buffer_size=_READ_BYTES if local else _REQUEST_BYTES,
                    pre_buffer=False,
                    read_dictionary=list(as_dictionary),
                    metadata=metadata,
                )
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"not a readable Parquet file: {short(error)}",
                    file=self.path,
                    remedy="write it again, or give a file named .parquet, .csv or .tsv",
                ) from error
            yield stack.enter_context(file)
