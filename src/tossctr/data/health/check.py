"""Describe the columns of a raw file.

A file is read once, in batches. Counts, means, ranges and missing values are exact; quantiles and
drift of large files are estimated from a random sample of rows; distinct values are counted up to a
limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tossctr.data.encoding.report import MANY_UNSEEN
from tossctr.data.health.column import ColumnHealth
from tossctr.data.health.drift import stability_index, unseen_share
from tossctr.data.health.kinds import are_flags, filled, kind_of
from tossctr.data.plain_types import to_single_values
from tossctr.data.sources.base import BATCH_ROWS
from tossctr.data.sources.opening import open_source, say_order
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.location import Location, name_of
from tossctr.progress import track


@dataclass(frozen=True)
class Health:
    """The result of `check`. If two files were compared, `drift` and the share of ids that are
    `unseen` in the other file, by column."""

    file: Location
    rows: int
    columns: dict[str, ColumnHealth]
    drift: dict[str, float | None] = field(default_factory=dict)
    only_here: tuple[str, ...] = ()
    only_there: tuple[str, ...] = ()
    unseen: dict[str, float | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "rows": self.rows,
            "columns": {name: column.as_dict() for name, column in self.columns.items()},
            "drift": self.drift,
            "unseen": self.unseen,
            "only_here": list(self.only_here),
            "only_there": list(self.only_there),
        }


def check(path: Location, against: Location | None = None) -> Health:
    """Read a file completely and describe its columns.

    Args:
        path: a raw file, or a folder of files.
        against: another one, to compare their columns (train with test).

    Raises:
        UserError: a file cannot be read.
    """
    here = _profile(path)
    if against is None:
        return here
    there = _profile(against)
    both = [name for name in here.columns if name in there.columns]
    return Health(
        path,
        here.rows,
        here.columns,
        {name: stability_index(here.columns[name], there.columns[name]) for name in both},
        tuple(name for name in here.columns if name not in there.columns),
        tuple(name for name in there.columns if name not in here.columns),
        {name: _unseen(here.columns[name], there.columns[name], against) for name in both},
    )


def _unseen(here: ColumnHealth, there: ColumnHealth, against: Location) -> float | None:
    share = unseen_share(here, there)
    if share is not None and share > MANY_UNSEEN and "numbers" not in (here.kind, there.kind):
        here.problems.append(f"{share:.0%} of the values do not occur in {name_of(against)}")
    return share


def _profile(path: Location) -> Health:
    source = open_source(path)
    say_order(source)
    columns = {name: _Profile(name, source.has_types) for name in source.names}
    row = 0
    with track(f"check {name_of(path)}", source.num_rows) as advance:
        for batch in source.batches():
            where = Where(row, source.file)
            for name, column in columns.items():
                column.update(batch.column(name), where)
            row += batch.num_rows
            advance(batch.num_rows)
    return Health(path, row, {name: column.result() for name, column in columns.items()})


class _Profile:
    """A column while it is read; the first batch with a value determines its kind."""

    def __init__(self, name: str, has_types: bool) -> None:
        self._has_types = has_types
        self._is_flag = False
        self._known = False
        self._type = pa.null()
        self._blank = 0  # rows before the first value, added once the kind is known
        self._found = ColumnHealth(name, "", "other")

    def update(self, array: pa.Array, where: Where) -> None:
        if not self._known:
            self._decide(array)
            if not self._known:
                self._blank += len(array)
                return
            self._count_blank()
        found = self._found
        try:
            found.update(array, where)
        except (UserError, pa.ArrowException, UnicodeDecodeError):  # bytes, the first of them text
            after = f"bytes that are not text, after {found.rows:,} rows that are"
            self._found = ColumnHealth(
                found.name, found.type, "other", rows=found.rows, missing=found.missing
            )
            self._found.problems.append(f"{after}: {_of_no_feature(array.type)}")
            self._found.update(array, where)

    def _decide(self, array: pa.Array) -> None:
        values = filled(array)
        self._type, self._found.type = array.type, str(array.type)
        self._found.kind, self._found.splitter = kind_of(values, self._has_types)
        self._known = len(values) > 0
        self._is_flag = not self._has_types and are_flags(values)
        if self._known and self._found.kind == "other":
            self._found.problems.append(_of_no_feature(array.type))

    def _count_blank(self) -> None:
        for first in range(0, self._blank, BATCH_ROWS):
            blank = pa.nulls(min(BATCH_ROWS, self._blank - first), self._type)
            self._found.update(blank, Where(first))

    def result(self) -> ColumnHealth:
        found = self._found
        if not self._known:
            self._count_blank()
        if not self._has_types and found.kind == "numbers":
            found.type = "bool" if self._is_flag else "float" if found.fractions else "int"
        elif not self._has_types and found.kind in ("texts", "sequences"):
            found.type = "str"
        found.finish()
        return found


def _of_no_feature(kind: pa.DataType) -> str:
    remedy = to_single_values(kind) if pa.types.is_nested(kind) else "write it as text or numbers"
    return f"no feature has this type: {remedy}"
