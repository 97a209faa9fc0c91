"""Drift of a column between two files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.health.column import ColumnHealth

Array = NDArray[Any]

LARGE_DRIFT = 0.25  # the usual threshold of the population stability index


def stability_index(a: ColumnHealth, b: ColumnHealth) -> float | None:
    """Population stability index: sum of (p - q) ln(p / q) over ten classes of equal size in `a`
    (of numbers or lengths), and over texts or tokens (of sequences, the larger of both). Missing
    values are a class of their own, and a class without rows counts as half a row.

    None if it is undefined: columns of different kinds, no rows, or so many texts that the index
    would be large by chance.
    """
    if not a.rows or not b.rows:
        return None
    if a.rows == a.missing or b.rows == b.missing:
        return _index(*(np.array([c.missing, c.rows - c.missing]) for c in (a, b)))
    if a.kind != b.kind or a.kind == "other":
        return None
    found = []
    if a.kind != "texts":
        values = [column.sample.values for column in (a, b)]
        if not all(np.isfinite(v).any() for v in values):
            return None
        inside = values[0][np.isfinite(values[0])]
        edges = np.unique(np.quantile(inside, np.linspace(0, 1, 11)[1:-1]))
        found.append(_index(*(_classes(v, edges) for v in values)))
    if a.kind in ("texts", "sequences") and not (a.distinct_more or b.distinct_more):
        names = sorted(a.counts.keys() | b.counts.keys())
        counts = [
            np.array([*(c.counts[n] for n in names), c.missing if c.kind == "texts" else 0])
            for c in (a, b)
        ]
        chance = sum(len(names) / max(c.sum(), 1) for c in counts)
        if chance < LARGE_DRIFT / 2:
            found.append(_index(*counts))
    return max(found, default=None)


def unseen_share(a: ColumnHealth, b: ColumnHealth) -> float | None:
    """The share of the ids of `a` that do not occur in `b`: texts, tokens or whole numbers.

    None if it is undefined: measurements, too many distinct ids, or no value.
    """
    if a.distinct_more or b.distinct_more:
        return None
    ours, theirs = _ids(a), _ids(b)
    total = sum(ours.values()) if ours is not None else 0
    if ours is None or theirs is None or not total:
        return None
    return sum(n for text, n in ours.items() if text not in theirs) / total


def _ids(column: ColumnHealth) -> dict[str, int] | None:
    if column.kind in ("texts", "sequences"):
        return column.counts
    if column.kind != "numbers" or column.fractions:
        return None
    numbers = zip(column.numbers.tolist(), column.number_counts.tolist(), strict=True)
    return {str(int(number)): int(count) for number, count in numbers}


def _classes(values: Array, edges: Array) -> Array:
    known = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1)
    return np.append(counts, len(values) - len(known))


def _index(a: Array, b: Array) -> float:
    keep = (a > 0) | (b > 0)
    p, q = (np.maximum(counts[keep], 0.5) for counts in (a, b))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())
