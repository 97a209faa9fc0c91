"""Ranking metrics within groups (a user's rows, say), averaged over groups as FuxiCTR does.

Each compares rows of one group only, never scores of different groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.progress import say

Floats = NDArray[np.float64]

NO_GROUP = int(np.iinfo(np.int64).min)  # of a row whose group is not known


def warn_of_missing_groups(group: NDArray[Any] | None, name: str | None) -> None:
    """Log how many rows have no group: grouped metrics leave them out."""
    if group is None:
        return
    missing = int((group == NO_GROUP).sum())
    if missing:
        say(f"{missing:,} of {len(group):,} rows have no {name}: grouped metrics leave them out")


@dataclass(frozen=True)
class GroupedRows:
    """The N rows whose group is known, sorted by group, within a group by descending score.

    Attributes:
        label: (N,) 0 or 1.
        score: (N,) log odds.
        group: (N,) group numbers, ascending from 0.
        rank: (N,) rank within the group, from 0.
    """

    label: Floats
    score: Floats
    group: NDArray[np.int64]
    rank: NDArray[np.int64]

    @classmethod
    def sort(cls, label: Floats, score: Floats, group: NDArray[Any]) -> GroupedRows:
        """Sort N rows. Rows of `NO_GROUP` are left out. Of equal scores the later row comes first,
        as in FuxiCTR's reversed stable sort."""
        known = group != NO_GROUP
        if not known.all():
            label, score, group = label[known], score[known], group[known]
        _, group = np.unique(group, return_inverse=True)
        order = np.lexsort((-np.arange(len(score)), -score, group))
        group = group[order]
        return cls(label[order], score[order], group, _ranks(group))

    def mean_auc(self, *, weighted: bool) -> float:
        """Mean AUC of the groups with both classes, weighted by their rows or not; NaN if none."""
        rows = np.bincount(self.group)
        positives = np.bincount(self.group, self.label)
        negatives = rows - positives
        both = (positives > 0) & (negatives > 0)
        if not both.any():
            return float("nan")
        # Ranks by ascending score within the group; equal scores share their mean rank.
        rising = rows[self.group] - self.rank
        ties = np.cumsum(_starts(self.group) | _starts(self.score)) - 1
        shared = (np.bincount(ties, rising) / np.bincount(ties))[ties]
        sums = np.bincount(self.group, shared * self.label)
        auc = (sums - positives * (positives + 1) / 2)[both] / (positives * negatives)[both]
        return float(np.average(auc, weights=rows[both] if weighted else None))

    def reciprocal_rank(self) -> float:
        """Mean over groups of the mean 1 / rank of their positives; 0 for groups without any."""
        found = np.bincount(self.group, self.label / (self.rank + 1))
        positives = np.bincount(self.group, self.label)
        return float((found / np.maximum(positives, 1)).mean()) if len(found) else float("nan")

    def ndcg(self, k: int) -> float:
        """Mean over groups of the discounted cumulative gain in the first k ranks, divided by the
        ideal one; 0 for groups without positives."""
        if not len(self.group):
            return float("nan")
        discount = 1 / np.log2(self.rank + 2)
        gain = np.bincount(self.group, np.where(self.rank < k, self.label * discount, 0))
        positives = np.bincount(self.group, self.label)[self.group]
        ideal = np.bincount(self.group, np.where(self.rank < np.minimum(k, positives), discount, 0))
        return float((gain / np.where(ideal > 0, ideal, 1)).mean())


def _starts(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether a value differs from the one before it."""
    starts = np.ones(len(values), bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def _ranks(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) rank of each row within its group, for sorted groups."""
    first = np.flatnonzero(_starts(group))
    lengths = np.diff(np.append(first, len(group)))
    return np.arange(len(group)) - np.repeat(first, lengths)
