"""Read the files of a folder as one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import accumulate, takewhile

import pyarrow as pa

from tossctr.data.sources.base import Source, require_columns, short
from tossctr.data.sources.parquet import ParquetSource
from tossctr.data.where import Files
from tossctr.errors import UserError
from tossctr.location import Location

_INTEGER = r"0|-?[1-9][0-9]{0,17}"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


class FolderSource(Source):
    """Concatenated files, with consecutive row numbers.

    A column with different types is read as their common type. Columns in the names of folders are
    added to those of the files.

    Args:
        path: of the folder.
        sources: the files in order, at least one.
        partitions: the columns in the names of each file's folders.
        columns: the columns to read by default; none: all.

    Raises:
        UserError: a column without a common type, files of different vocabularies, or different
            columns in the names of folders.
    """

    def __init__(
        self,
        path: Location,
        sources: Sequence[Source],
        partitions: Sequence[Mapping[str, str | None]],
        columns: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._sources = tuple(sources)
        first = self._sources[0]
        self._constants = _typed_partitions(path, self._sources, partitions)
        self.names = (*first.names, *self._constants[0])
        self.vocabulary, self.has_types = first.vocabulary, first.has_types
        self.columns = tuple(columns) or self.names
        self._types: dict[str, pa.DataType] = {}
        for source in self._sources:
            require_columns(source, self._in_files(columns))
            if source.vocabulary != self.vocabulary:
                raise UserError(
                    f"was not made with the vocabulary of {first.path}",
                    file=source.path,
                    remedy="keep files of one vocabulary in a folder",
                )

    def _in_files(self, columns: Sequence[str]) -> list[str]:
        return [name for name in columns if name not in self._constants[0]]

    def _type(self, name: str) -> pa.DataType:
        """Of a column of Parquet files."""
        if name not in self._types:
            sources = [source for source in self._sources if isinstance(source, ParquetSource)]
            common = sources[0].schema.field(name).type
            for source in sources[1:]:
                common = _common(name, common, source)
            self._types[name] = common
        return self._types[name]

    @property
    def num_rows(self) -> int | None:
        rows = [source.num_rows for source in self._sources]
        return sum(n or 0 for n in rows) if None not in rows else None

    @property
    def file(self) -> Files:
        """The files, with the rows of those whose number is known: all before one being read."""
        known = takewhile(lambda rows: rows is not None, (p.num_rows for p in self._sources))
        ends = tuple(accumulate(rows or 0 for rows in known))
        return Files(self.path, tuple(source.path for source in self._sources), ends)

    @property
    def ends(self) -> tuple[int, ...] | None:
        ends: list[int] = []
        for source in self._sources:
            if source.ends is None:
                return None
            before = ends[-1] if ends else 0
            ends += [before + end for end in source.ends]
        return tuple(ends)

    def count_rows(self) -> int:
        return sum(source.count_rows() for source in self._sources)

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        own = self._in_files(columns)
        for source in self._sources:
            require_columns(source, own)
        first = 0  # row of the file's first
        for source, constants in zip(self._sources, self._constants, strict=True):
            if first >= stop:
                return
            read = 0
            if start > first and first + source.count_rows() <= start:
                first += source.count_rows()
                continue
            begin = max(start - first, 0)
            for batch in source.batches(own or source.names[:1], begin, stop - first, batch_rows):
                read += batch.num_rows
                yield self._row_batch(batch, columns, constants, source)
            first += source.num_rows if source.num_rows is not None else begin + read

    def _row_batch(
        self,
        batch: pa.RecordBatch,
        columns: Sequence[str],
        constants: Mapping[str, pa.Scalar],
        source: Source,
    ) -> pa.RecordBatch:
        arrays = []
        for name in columns:
            if name in constants:
                arrays.append(pa.repeat(constants[name], batch.num_rows))
                continue
            array = batch.column(name)
            if isinstance(source, ParquetSource) and array.type != self._type(name):
                try:
                    array = array.cast(self._type(name))
                except pa.ArrowException as error:
                    raise UserError(
                        f"cannot be read as {self._type(name)}, as other files have it: "
                        f"{short(error)}",
                        file=source.path,
                        column=name,
                        remedy="write the files with the same types",
                    ) from error
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _typed_partitions(
    path: Location, sources: Sequence[Source], partitions: Sequence[Mapping[str, str | None]]
) -> list[dict[str, pa.Scalar]]:
    """The columns in the names of folders that are not in the files, as whole numbers or dates
    where all values are, else as texts."""
    for source, values in zip(sources, partitions, strict=True):
        if values.keys() != partitions[0].keys():
            raise UserError(
                f"its folders name the columns {', '.join(values) or 'none'}, those of "
                f"{sources[0].path} {', '.join(partitions[0]) or 'none'}",
                file=source.path,
                remedy="name the folders in one way",
            )
    typed: list[dict[str, pa.Scalar]] = [{} for _ in sources]
    for name in partitions[0]:
        if name in sources[0].names:
            continue
        texts = [values[name] for values in partitions]
        for constants, value in zip(typed, _as_common(texts), strict=True):
            constants[name] = value
    return typed


def _as_common(texts: Sequence[str | None]) -> pa.Array:
    known = [text for text in texts if text is not None]
    if known and all(re.fullmatch(_INTEGER, text) for text in known):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    if known and all(re.fullmatch(_DATE, text) for text in known):
        try:
            days = [None if text is None else date.fromisoformat(text) for text in texts]
            return pa.array(days, pa.date32())
        except ValueError:  # 2026-02-30
            pass
    return pa.array(texts, pa.string())


def _common(name: str, before: pa.DataType, source: ParquetSource) -> pa.DataType:
    here = source.schema.field(name).type
    if here == before:
        return here
    kinds = [k.value_type if pa.types.is_dictionary(k) else k for k in (before, here)]
    try:
        both = [pa.schema([(name, kind)]) for kind in kinds]
        return pa.unify_schemas(both, promote_options="permissive").field(name).type
    except pa.ArrowException:
        raise UserError(
            f"holds {here}, in the files before it {before}",
            file=source.path,
            column=name,
            remedy="write the files with the same types",
        ) from None
