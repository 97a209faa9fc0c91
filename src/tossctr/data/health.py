"""The health of a raw file, before any work: what is in each column, and how two files differ.

A file is read once, in batches. Counts, ranges and missing values are exact; quantiles and drift
come from an evenly spaced sample of rows, distinct values are counted up to a bound.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoding.numbers import as_floats
from tossctr.data.encoding.texts import as_text, dictionary_of
from tossctr.data.encoding.tokens import SPLITTERS, IntTokens, is_list, split_tokens
from tossctr.data.sources import open_source
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.location import Location, name_of
from tossctr.progress import track

Array = NDArray[Any]
Kind = Literal["numbers", "texts", "sequences"]

SAMPLE = 20_000  # values of a column that quantiles and drift are taken from
MAX_DISTINCT = 50_000
LARGE_DRIFT = 0.25  # of the population stability index: the usual bound for "has shifted"
QUANTILES = (0, 0.05, 0.5, 0.95, 1)


class Sample:
    """Every so many-th value of a stream, so many that there are from `SAMPLE` to twice that."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._stride, self._next, self._size = 1, 0, 0

    def add(self, values: Array) -> None:
        taken = values[self._next :: self._stride]
        self._next = (self._next - len(values)) % self._stride
        self._parts.append(np.asarray(taken, np.float64))
        self._size += len(taken)
        while self._size > 2 * SAMPLE:
            self._parts = [np.concatenate(self._parts)[::2]]
            if self._size % 2 == 1:  # the last one taken stays: the next is a whole stride on
                self._next += self._stride
            self._size, self._stride = len(self._parts[0]), 2 * self._stride

    @property
    def values(self) -> Array:
        return np.concatenate(self._parts) if self._parts else np.empty(0)


@dataclass
class ColumnHealth:
    """What one column holds.

    Attributes:
        type: as the file has it.
        rows, missing: all rows, and those without a value (null, NaN, the empty text).
        infinite: infinite numbers.
        low, high: range of the finite numbers, or of the lengths of sequences.
        values: sample of numbers, or of lengths.
        counts: how often each text (or token) occurs, until there are too many.
        distinct_more: there were too many.
        problems: what will not go through, or will not help a model.
    """

    name: str
    type: str
    kind: Kind
    splitter: str | None = None
    rows: int = 0
    missing: int = 0
    infinite: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    values: Sample = field(default_factory=Sample)
    counts: Counter[str] = field(default_factory=Counter)
    distinct_more: bool = False
    problems: list[str] = field(default_factory=list)

    def update(self, array: pa.Array, where: Where) -> None:
        self.rows += len(array)
        match self.kind:
            case "numbers":
                self._numbers(self._as_numbers(array), where)
            case "texts":
                codes, texts = dictionary_of(array)
                self.missing += int((codes < 0).sum())
                self._count(codes[codes >= 0], texts)
            case "sequences":
                self._sequences(array, where)

    def _as_numbers(self, array: pa.Array) -> pa.Array:
        if not pa.types.is_string(array.type):
            return array
        try:  # CSV has no types
            return array.cast(pa.float64())
        except pa.ArrowInvalid as error:
            self._problem(str(error))
            return pa.nulls(len(array), pa.float64())

    def _problem(self, text: str) -> None:
        if len(self.problems) < 3:
            self.problems.append(text)

    def _numbers(self, array: pa.Array, where: Where) -> None:
        values = as_floats(array, self.name, where)
        missing, infinite = np.isnan(values), np.isinf(values)
        self.missing += int(missing.sum())
        self.infinite += int(infinite.sum())
        finite = values[~(missing | infinite)]
        self._range(finite)
        self.values.add(values)

    def _sequences(self, array: pa.Array, where: Where) -> None:
        if not is_list(array):
            array = as_text(array, self.name, where)
        try:
            tokens = split_tokens(array, self.splitter or ",", "str", self.name, where)
        except UserError as error:
            self._problem(error.line())
            return
        lengths = np.diff(tokens.offsets)
        self.missing += int((lengths == 0).sum())
        self._range(lengths)
        self.values.add(lengths)
        if isinstance(tokens, IntTokens):
            ids, codes = np.unique(tokens.values, return_inverse=True)
            self._count(codes, list(map(str, ids.tolist())))
        else:
            self._count(tokens.codes, tokens.texts)

    def _range(self, values: Array) -> None:
        if len(values):
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def _count(self, codes: Array, texts: list[str]) -> None:
        counts = np.bincount(codes, minlength=len(texts)).tolist()
        for text, count in zip(texts, counts, strict=True):
            if text in self.counts or len(self.counts) < MAX_DISTINCT:
                self.counts[text] += count
            else:
                self.distinct_more = True

    @property
    def distinct(self) -> int | None:
        """Distinct texts or tokens, at least `MAX_DISTINCT` where there are more; None: numbers."""
        return None if self.kind == "numbers" else len(+self.counts)

    def quantiles(self) -> list[float]:
        """Of the numbers or lengths at `QUANTILES`; the ends are exact."""
        values = self.values.values
        values = values[np.isfinite(values)]
        if not len(values):
            return []
        inner = np.quantile(values, QUANTILES[1:-1]).tolist()
        return [self.low, *inner, self.high]

    def finish(self) -> None:
        """Say what stands out."""
        if self.rows and self.missing == self.rows:
            self.problems.append("no value at all")
        elif self.missing > self.rows / 2:
            self.problems.append(f"{self.missing / self.rows:.0%} missing")
        elif self.low == self.high or self.distinct == 1:
            self.problems.append("one value only")
        if self.infinite:
            self.problems.append(f"{self.infinite:,} infinite numbers, which prepare refuses")

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        common = {"type": self.type, "kind": self.kind, "missing": self.missing}
        if self.kind != "texts":
            common |= {"quantiles": self.quantiles()}
        if self.kind == "numbers":
            common |= {"infinite": self.infinite}
        else:
            common |= {
                "distinct": self.distinct,
                "distinct_is_more": self.distinct_more,
                "most_common": self.counts.most_common(5),
            }
        if self.splitter is not None:
            common |= {"splitter": self.splitter}
        return {**common, "problems": self.problems}


@dataclass(frozen=True)
class Health:
    """What `check` found in a file; `drift` by column, where it was compared with another."""

    file: Location
    rows: int
    columns: dict[str, ColumnHealth]
    drift: dict[str, float | None] = field(default_factory=dict)
    only_here: tuple[str, ...] = ()
    only_there: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "rows": self.rows,
            "columns": {name: column.as_dict() for name, column in self.columns.items()},
            "drift": self.drift,
            "only_here": list(self.only_here),
            "only_there": list(self.only_there),
        }


def check(path: Location, against: Location | None = None) -> Health:
    """Read a file through and say what is in it.

    Args:
        path: a raw parquet or CSV file, or a folder of parquet files.
        against: another, to compare the columns of both (train with test).

    Raises:
        UserError: a file that cannot be read.
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
    )


def _profile(path: Location) -> Health:
    source = open_source(path)
    columns: dict[str, ColumnHealth] = {}
    row = 0
    with track(f"check {name_of(path)}", source.num_rows) as advance:
        for batch in source.batches():
            if not columns:
                columns = {
                    f.name: _column(f, batch.column(i), source.num_rows is None)
                    for i, f in enumerate(batch.schema)
                }
            for name, column in columns.items():
                where = Where(row, source.file)
                with where.reading(name):
                    column.update(batch.column(name), where)
            row += batch.num_rows
            advance(batch.num_rows)
    for column in columns.values():
        column.finish()
    return Health(path, row, columns)


def _column(of: pa.Field, first: pa.Array, measured: bool) -> ColumnHealth:
    """What kind of column its type and its first values make it; `measured`: text may be numbers,
    as in a file without types."""
    kind = of.type.value_type if pa.types.is_dictionary(of.type) else of.type
    if is_list(first):
        return ColumnHealth(of.name, str(of.type), "sequences")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = first.cast(kind)
        filled = texts.filter(pc.not_equal(texts, "")) if len(texts) else texts
        for splitter, pattern in SPLITTERS.items():
            joined = pc.sum(pc.match_substring_regex(filled, f"^{pattern}$")).as_py() or 0
            if 2 * joined > len(filled):
                return ColumnHealth(of.name, str(of.type), "sequences", splitter)
        if measured and len(filled) and _are_measures(filled):
            return ColumnHealth(of.name, "number", "numbers")
        return ColumnHealth(of.name, str(of.type), "texts")
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        column = ColumnHealth(of.name, str(of.type), "texts")
        column.problems.append("of a type that no feature has")
        return column
    return ColumnHealth(of.name, str(of.type), "numbers")


def _are_measures(texts: pa.Array) -> bool:
    """Whether these are numbers, and not the few names of categories."""
    try:
        texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return pc.count_distinct(texts).as_py() > 50 or bool(pc.all(pc.equal(texts, "0")).as_py())


def stability_index(a: ColumnHealth, b: ColumnHealth) -> float | None:
    """Population stability index: sum of (p - q) ln(p / q) over ten classes of equal size in `a`
    (of numbers or lengths), and over texts or tokens (of sequences, the larger of both). Missing
    values are a class of their own, and a class without rows counts as half a row.

    None where it cannot be told: columns of different kinds, no rows, or so many texts that
    chance alone would make a large index.
    """
    if a.kind != b.kind or not a.rows or not b.rows:
        return None
    found = []
    if a.kind != "texts":
        values = [column.values.values for column in (a, b)]
        if not all(np.isfinite(v).any() for v in values):
            return None
        inside = values[0][np.isfinite(values[0])]
        edges = np.unique(np.quantile(inside, np.linspace(0, 1, 11)[1:-1]))
        found.append(_index(*(_classes(v, edges) for v in values)))
    if a.kind != "numbers" and not (a.distinct_more or b.distinct_more):
        names = sorted(a.counts.keys() | b.counts.keys())
        counts = [
            np.array([*(c.counts[n] for n in names), c.missing if c.kind == "texts" else 0])
            for c in (a, b)
        ]
        chance = sum(len(names) / max(c.sum(), 1) for c in counts)
        if chance < LARGE_DRIFT / 2:
            found.append(_index(*counts))
    return max(found, default=None)


def _classes(values: Array, edges: Array) -> Array:
    known = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1)
    return np.append(counts, len(values) - len(known))


def _index(a: Array, b: Array) -> float:
    keep = (a > 0) | (b > 0)
    p, q = (np.maximum(counts[keep], 0.5) for counts in (a, b))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())
