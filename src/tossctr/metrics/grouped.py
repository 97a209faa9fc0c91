"""Ranking metrics within groups (a user's rows, say), under FuxiCTR's names and as it averages.

In all of them a row's place in its group is what counts; no score is compared across groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.progress import say

Floats = NDArray[np.float64]

NO_GROUP = int(np.iinfo(np.int64).min)  # of a row whose group is not known
NAMES = ("gAUC", "avgAUC", "MRR", "NDCG(k=N)")
_NDCG = re.compile(r"NDCG\(k=([1-9]\d*)\)")


def is_grouped(name: str) -> bool:
    """Whether a metric of that name needs a group for each row."""
    return name in NAMES[:3] or _NDCG.fullmatch(name) is not None


def say_left_out(group: NDArray[Any] | None, name: str | None) -> None:
    """Say how many rows have no group, and so no part in grouped metrics."""
    if group is None:
        return
    missing = int((group == NO_GROUP).sum())
    if missing:
        say(f"{missing:,} of {len(group):,} rows have no {name}: gAUC and its like leave them out")


@dataclass(frozen=True)
class Groups:
    """The N rows whose group is known, sorted by group, and by falling score within each.

    Attributes:
        label: (N,) 0 or 1.
        score: (N,) log odds.
        group: (N,) numbers from 0, rising.
        rank: (N,) place within the group, from 0.
    """

    label: Floats
    score: Floats
    group: NDArray[np.int64]
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, label: Floats, score: Floats, group: NDArray[Any]) -> Groups:
        """Sort rows; of equal scores the later row comes first, as in a reversed stable sort. Rows
        of `NO_GROUP` are left out: they are no group."""
        known = group != NO_GROUP
        if not known.all():
            label, score, group = label[known], score[known], group[known]
        _, group = np.unique(group, return_inverse=True)
        order = np.lexsort((-np.arange(len(score)), -score, group))
        group = group[order]
        return cls(label[order], score[order], group, _places(group))

    def metric(self, name: str) -> float:
        """One of `NAMES`; NaN where no group tells.

        Raises:
            KeyError: another name.
        """
        if name == "gAUC":  # Zhou et al., KDD 2018: weighted by the rows of a group
            return self._mean_auc(weighted=True)
        if name == "avgAUC":
            return self._mean_auc(weighted=False)
        if name == "MRR":
            return self._reciprocal_rank()
        found = _NDCG.fullmatch(name)
        if found is None:
            raise KeyError(name)
        return self._ndcg(int(found[1]))

    def _mean_auc(self, *, weighted: bool) -> float:
        """Mean AUC of the groups that hold both classes."""
        rows = np.bincount(self.group)
        positives = np.bincount(self.group, self.label)
        negatives = rows - positives
        both = (positives > 0) & (negatives > 0)
        if not both.any():
            return float("nan")
        # The rank of a row among the rising scores of its group; equal scores share their mean.
        rising = rows[self.group] - self.rank
        ties = np.cumsum(_starts(self.group) | _starts(self.score)) - 1
        shared = (np.bincount(ties, rising) / np.bincount(ties))[ties]
        sums = np.bincount(self.group, shared * self.label)
        auc = (sums - positives * (positives + 1) / 2)[both] / (positives * negatives)[both]
        return float(np.average(auc, weights=rows[both] if weighted else None))

    def _reciprocal_rank(self) -> float:
        """Mean over groups of the mean 1 / rank of their positives, 0 for a group without."""
        found = np.bincount(self.group, self.label / (self.rank + 1))
        positives = np.bincount(self.group, self.label)
        return float((found / np.maximum(positives, 1)).mean()) if len(found) else float("nan")

    def _ndcg(self, k: int) -> float:
        """Mean over groups of the discounted gain in the first k, as a share of the best; 0 for a
        group without positives."""
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


def _places(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of sorted groups, each row's place within its own."""
    first = np.flatnonzero(_starts(group))
    lengths = np.diff(np.append(first, len(group)))
    return np.arange(len(group)) - np.repeat(first, lengths)
