"""Files of a folder as one long file."""

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
    """Files one after the other, their rows counted through.

    A column that differs in type from file to file is read as the type that holds both. Columns in
    the names of folders are added to those of the files.

    Args:
        path: where they are.
        parts: the files in order, one at least.
        partitions: for each, the columns in the names of its folders.
        columns: those to read where `batches` is not told; none are all.

    Raises:
        UserError: columns that no type holds in common, indices of different vocabularies, or files
            with different columns in the names of their folders.
    """

    def __init__(
        self,
        path: Location,
        parts: Sequence[Source],
        partitions: Sequence[Mapping[str, str | None]],
        columns: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._parts = tuple(parts)
        first = self._parts[0]
        self._constants = _typed_partitions(path, self._parts, partitions)
        self.names = (*first.names, *self._constants[0])
        self.vocabulary, self.has_types = first.vocabulary, first.has_types
        self.columns = tuple(columns) or self.names
        self._types: dict[str, pa.DataType] = {}
        for part in self._parts:
            require_columns(part, self._in_files(columns))
            if part.vocabulary != self.vocabulary:
                raise UserError(
                    f"was not made with the vocabulary of {first.path}",
                    file=part.path,
                    remedy="keep files of one vocabulary in a folder",
                )

    def _in_files(self, columns: Sequence[str]) -> list[str]:
        return [name for name in columns if name not in self._constants[0]]

    def _type(self, name: str) -> pa.DataType:
        """Of a column of Parquet files."""
        if name not in self._types:
            parts = [part for part in self._parts if isinstance(part, ParquetSource)]
            common = parts[0].schema.field(name).type
            for part in parts[1:]:
                common = _common(name, common, part)
            self._types[name] = common
        return self._types[name]

    @property
    def num_rows(self) -> int | None:
        rows = [part.num_rows for part in self._parts]
        return sum(n or 0 for n in rows) if None not in rows else None

    @property
    def file(self) -> Files:
        """The files, with the rows of those whose number is known: all before one being read."""
        known = takewhile(lambda rows: rows is not None, (p.num_rows for p in self._parts))
        ends = tuple(accumulate(rows or 0 for rows in known))
        return Files(self.path, tuple(part.path for part in self._parts), ends)

    @property
    def ends(self) -> tuple[int, ...] | None:
        ends: list[int] = []
        for part in self._parts:
            if part.ends is None:
                return None
            before = ends[-1] if ends else 0
            ends += [before + end for end in part.ends]
        return tuple(ends)

    def count_rows(self) -> int:
        return sum(part.count_rows() for part in self._parts)

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        own = self._in_files(columns)
        for part in self._parts:
            require_columns(part, own)
        first = 0  # row of the file's first
        for part, constants in zip(self._parts, self._constants, strict=True):
            if first >= stop:
                return
            read = 0
            if start > first and first + part.count_rows() <= start:
                first += part.count_rows()
                continue
            begin = max(start - first, 0)
            for batch in part.batches(own or part.names[:1], begin, stop - first, batch_rows):
                read += batch.num_rows
                yield self._row_batch(batch, columns, constants, part)
            first += part.num_rows if part.num_rows is not None else begin + read

    def _row_batch(
        self,
        batch: pa.RecordBatch,
        columns: Sequence[str],
        constants: Mapping[str, pa.Scalar],
        part: Source,
    ) -> pa.RecordBatch:
        arrays = []
        for name in columns:
            if name in constants:
                arrays.append(pa.repeat(constants[name], batch.num_rows))
                continue
            array = batch.column(name)
            if isinstance(part, ParquetSource) and array.type != self._type(name):
                try:
                    array = array.cast(self._type(name))
                except pa.ArrowException as error:
                    raise UserError(
                        f"cannot be read as {self._type(name)}, as other files have it: "
                        f"{short(error)}",
                        file=part.path,
                        column=name,
                        remedy="write the files with the same types",
                    ) from error
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _typed_partitions(
    path: Location, parts: Sequence[Source], partitions: Sequence[Mapping[str, str | None]]
) -> list[dict[str, pa.Scalar]]:
    """The columns in the names of folders that are not in the files, as whole numbers or dates
    where all values are, else as texts."""
    for part, values in zip(parts, partitions, strict=True):
        if values.keys() != partitions[0].keys():
            raise UserError(
                f"its folders name the columns {', '.join(values) or 'none'}, those of "
                f"{parts[0].path} {', '.join(partitions[0]) or 'none'}",
                file=part.path,
                remedy="name the folders in one way",
            )
    typed: list[dict[str, pa.Scalar]] = [{} for _ in parts]
    for name in partitions[0]:
        if name in parts[0].names:
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


def _common(name: str, before: pa.DataType, part: ParquetSource) -> pa.DataType:
    here = part.schema.field(name).type
    if here == before:
        return here
    kinds = [k.value_type if pa.types.is_dictionary(k) else k for k in (before, here)]
    try:
        both = [pa.schema([(name, kind)]) for kind in kinds]
        return pa.unify_schemas(both, promote_options="permissive").field(name).type
    except pa.ArrowException:
        raise UserError(
            f"holds {here}, in the files before it {before}",
            file=part.path,
            column=name,
            remedy="write the files with the same types",
        ) from None
