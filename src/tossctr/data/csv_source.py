"""CSV files as streams of Arrow batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tossctr.config.nulls import NA_VALUES
from tossctr.data.sources import (
    BATCH_ROWS,
    CSV_SUFFIXES,
    ColumnType,
    between,
    require_columns,
    unreadable,
)
from tossctr.errors import UserError

_CSV_BLOCK_BYTES = (4 << 20, 64 << 20, 1 << 30)  # a row must fit into a block: larger if need be
_ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


class CsvSource:
    """A CSV (or tab-separated `.tsv`) file with a header line; a field is missing where it is empty
    or one of `na_values`."""

    has_types = False
    num_rows = None
    ends = None
    vocabulary = None

    def __init__(
        self, path: Path, types: Mapping[str, ColumnType], na_values: Sequence[str] = NA_VALUES
    ) -> None:
        self.path = self.file = path
        self._null = ["", *na_values]
        self._types = types
        self._parsing = pa.csv.ParseOptions(delimiter=CSV_SUFFIXES[path.suffix.lower()])
        self.names = self._header()
        self._columns = tuple(types) or self.names

    def _header(self) -> tuple[str, ...]:
        for block_bytes in _CSV_BLOCK_BYTES:
            options = pa.csv.ReadOptions(block_size=block_bytes)
            try:
                with pa.csv.open_csv(
                    self.path, read_options=options, parse_options=self._parsing
                ) as reader:
                    return tuple(reader.schema.names)
            except UnicodeDecodeError as error:
                raise UserError(
                    "is not UTF-8 text", file=self.path, remedy="save it as UTF-8"
                ) from error
            except (pa.ArrowException, OSError) as error:
                if "straddl" not in str(error):
                    raise unreadable(self.path, error) from error
        raise UserError("a row is too long", file=self.path, remedy="write it as Parquet")

    def count_rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches(self.names[:1]))

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        columns = self._columns if columns is None else columns
        require_columns(self, columns)
        if stop is not None and start >= stop:
            return
        for block_bytes in _CSV_BLOCK_BYTES:
            try:
                with self._open(columns, block_bytes) as reader:
                    for batch in between(reader, start, stop, columns, batch_rows):
                        start += batch.num_rows
                        yield batch
                return
            except (pa.ArrowException, OSError) as error:
                too_long = "straddl" in str(error) and block_bytes != _CSV_BLOCK_BYTES[-1]
                if not too_long:
                    raise self._wrong_value(error) or unreadable(self.path, error) from error

    def _open(self, columns: Sequence[str], block_bytes: int) -> pa.csv.CSVStreamingReader:
        options = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: _ARROW_TYPES[self._types.get(name, "str")] for name in columns},
            null_values=self._null,
            strings_can_be_null=True,
        )
        return pa.csv.open_csv(
            self.path,
            read_options=pa.csv.ReadOptions(block_size=block_bytes),
            parse_options=self._parsing,
            convert_options=options,
        )

    def _wrong_value(self, error: Exception) -> UserError | None:
        """Arrow names column and value of a failed conversion, but no row: look for it."""
        found = re.search(r"In CSV column #(\d+): .* invalid value '(.*)'$", str(error), re.DOTALL)
        if found is None:
            return None
        column, row = self.names[int(found[1])], 0
        for batch in CsvSource(self.path, {}).batches([column]):
            at = pc.index(batch.column(column), found[2]).as_py()
            if at >= 0:
                row += at
                break
            row += batch.num_rows
        return UserError(
            f"not of type {self._types[column]}",
            file=self.path,
            column=column,
            row=row,
            value=found[2],
            remedy="correct the value, or the column's dtype in the data set's config",
        )
