"""Parquet files of a folder as one long file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import pyarrow as pa

from tossctr.data.sources import BATCH_ROWS, ParquetSource, require_columns
from tossctr.data.where import Files
from tossctr.errors import UserError
from tossctr.location import Location


class FolderSource:
    """Files one after the other, their rows counted through.

    A column that differs in type from file to file is read as the type that holds both.

    Args:
        path: where they are.
        parts: the files in order, one at least.

    Raises:
        UserError: columns that no type holds in common, or indices of different vocabularies.
    """

    has_types = True

    def __init__(self, path: Location, parts: Sequence[ParquetSource]) -> None:
        self.path = path
        self._parts = tuple(parts)
        self.num_rows = sum(part.num_rows for part in parts)
        ends = tuple(accumulate(part.num_rows for part in parts))
        self.file = Files(path, tuple(part.path for part in parts), ends)
        first = self._parts[0]
        self.names, self.vocabulary = first.names, first.vocabulary
        self._columns = first.columns
        self._types: dict[str, pa.DataType] = {}
        for part in self._parts:
            require_columns(part, self._columns)
            if part.vocabulary != self.vocabulary:
                raise UserError(
                    f"was not made with the vocabulary of {first.path}",
                    file=part.path,
                    remedy="keep files of one vocabulary in a folder",
                )

    def _type(self, name: str) -> pa.DataType:
        if name not in self._types:
            common = self._parts[0].schema.field(name).type
            for part in self._parts[1:]:
                common = _common(name, common, part)
            self._types[name] = common
        return self._types[name]

    @property
    def ends(self) -> tuple[int, ...]:
        ends: list[int] = []
        for part in self._parts:
            before = ends[-1] if ends else 0
            ends += [before + end for end in part.ends]
        return tuple(ends)

    def count_rows(self) -> int:
        return self.num_rows

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        columns = self._columns if columns is None else columns
        for part in self._parts:
            require_columns(part, columns)
        schema = pa.schema([(name, self._type(name)) for name in columns])
        stop = self.num_rows if stop is None else min(stop, self.num_rows)
        first = 0  # row of the file's first
        for part in self._parts:
            end = first + part.num_rows
            if first < stop and end > start:
                for batch in part.batches(columns, max(start - first, 0), stop - first, batch_rows):
                    yield batch if batch.schema.equals(schema) else batch.cast(schema)
            first = end


def _common(name: str, before: pa.DataType, part: ParquetSource) -> pa.DataType:
    here = part.schema.field(name).type
    if here == before:
        return here
    try:
        both = [pa.schema([(name, kind)]) for kind in (before, here)]
        return pa.unify_schemas(both, promote_options="permissive").field(name).type
    except pa.ArrowException:
        raise UserError(
            f"holds {here}, in the files before it {before}",
            file=part.path,
            column=name,
            remedy="write the files with the same types",
        ) from None
