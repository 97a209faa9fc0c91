"""CSV files as streams of Arrow batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from tossctr.config.nulls import NA_VALUES
from tossctr.config.schema import Dtype
from tossctr.data.sources.base import Source, between, unreadable
from tossctr.errors import UserError
from tossctr.location import Location, name_of, opened

_CSV_BLOCK_BYTES = (4 << 20, 64 << 20, 1 << 30)  # a row must fit in a block; increased if necessary
_HEAD_BYTES = 1 << 20
_ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
_COMPRESSION = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}
_SEPARATORS = ",\t;|"
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class CsvSource(Source):
    """A CSV file with a header line, compressed or not. Empty fields and `na_values` are missing.

    Columns are separated by commas, or if the header has none, by tabs, semicolons or `|`.
    """

    has_types = False

    def __init__(
        self, path: Location, types: Mapping[str, Dtype], na_values: Sequence[str] = NA_VALUES
    ) -> None:
        self.path = path
        self._null = ["", *na_values]
        self._types = types
        self._parsing = pa.csv.ParseOptions(delimiter=self._separator())
        self._rows: int | None = None  # known after the file was read completely
        self.names = self._header()
        self.columns = tuple(types) or self.names

    @property
    def num_rows(self) -> int | None:
        return self._rows

    @contextmanager
    def _stream(self) -> Iterator[pa.NativeFile]:
        codec = _COMPRESSION.get(name_of(self.path).lower().split(".")[-1])
        if isinstance(self.path, Path):
            with pa.input_stream(str(self.path), compression=codec) as stream:
                yield stream
            return
        with opened(self.path) as file, pa.PythonFile(file, "r") as plain:
            yield plain if codec is None else pa.CompressedInputStream(plain, codec)

    def _separator(self) -> str:
        """Detect the separator from the header.

        Raises:
            UserError: the file cannot be read, is empty, or is of another encoding.
        """
        try:
            with self._stream() as stream:
                head = bytes(stream.read(_HEAD_BYTES))
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from error
        if not head.strip(b"\xef\xbb\xbf\r\n"):
            raise UserError(
                "is empty",
                file=self.path,
                remedy="write a header line with column names, and rows below it",
            )
        encoding = _MARKS.get(head[:2], "UTF-16" if b"\0" in head[:200] else None)
        if encoding is not None:
            raise self._not_utf8(encoding)
        unquoted = re.sub(rb'"[^"]*"', b"", head).lstrip(b"\r\n").split(b"\n")[0]
        usual = "\t" if ".tsv" in name_of(self.path).lower() else ","
        return next((s for s in usual + _SEPARATORS if s.encode() in unquoted), usual)

    def _not_utf8(self, encoding: str, row: int | None = None) -> UserError:
        name = "ENCODING" if encoding == "no UTF-8" else encoding
        return UserError(
            f"is {encoding} text",
            file=self.path,
            row=row,
            remedy=f"convert it: iconv -f {name} -t UTF-8 {name_of(self.path)} > utf8.csv",
        )

    def _header(self) -> tuple[str, ...]:
        for block_bytes in _CSV_BLOCK_BYTES:
            options = pa.csv.ReadOptions(block_size=block_bytes)
            try:
                with (
                    self._stream() as stream,
                    pa.csv.open_csv(
                        stream, read_options=options, parse_options=self._parsing
                    ) as reader,
                ):
                    return tuple(reader.schema.names)
            except UnicodeDecodeError as error:
                raise self._not_utf8("no UTF-8") from error
            except (pa.ArrowException, OSError) as error:
                if "straddl" not in str(error):
                    raise self._wrong(error) from error
        raise UserError("a row is too long", file=self.path, remedy="write it as Parquet")

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        first = start
        for block_bytes in _CSV_BLOCK_BYTES:
            try:
                with self._open(columns, block_bytes) as reader:
                    for batch in between(reader, start, stop, columns, batch_rows, self.path):
                        start += batch.num_rows
                        yield batch
                if start < stop and (start > first or first == 0):
                    self._rows = start
                return
            except (pa.ArrowException, OSError) as error:
                too_long = "straddl" in str(error) and block_bytes != _CSV_BLOCK_BYTES[-1]
                if not too_long:
                    raise self._wrong(error) from error

    @contextmanager
    def _open(
        self, columns: Sequence[str], block_bytes: int
    ) -> Iterator[pa.csv.CSVStreamingReader]:
        options = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: _ARROW_TYPES[self._types.get(name, "str")] for name in columns},
            null_values=self._null,
            strings_can_be_null=True,
        )
        with (
            self._stream() as stream,
            pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=block_bytes),
                parse_options=self._parsing,
                convert_options=options,
            ) as reader,
        ):
            yield reader

    def _wrong(self, error: Exception) -> UserError:
        """Arrow's error as a `UserError`; rows count from 0 below the header."""
        text = str(error)
        at = re.search(r"Row #(\d+)", text)
        row = None if at is None or int(at[1]) < 2 else int(at[1]) - 2
        if "invalid UTF8" in text:
            return self._not_utf8("no UTF-8", row)
        cell = re.search(r"In CSV column #(\d+): .* invalid value '(.*)'$", text, re.DOTALL)
        if cell is not None:
            name = self.names[int(cell[1])]
            return UserError(
                f"not of type {self._types[name]}",
                file=self.path,
                column=name,
                row=row,
                value=cell[2],
                remedy="correct the value, or the column's dtype in the data set's config",
            )
        fields = re.search(r"Expected (\d+) columns, got (\d+)", text)
        if fields is not None:
            return UserError(
                f"{fields[2]} fields, where the header has {fields[1]}",
                file=self.path,
                row=row,
                remedy='quote (") fields with separators or line breaks',
            )
        return unreadable(self.path, error, row)
