"""Confidence intervals of an AUC, and of the difference of two AUCs on the same rows.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988: the AUC is a mean over clicks, and a mean over
non-clicks, of the share of correctly ordered pairs; its variance is that of the two means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Z95 = 1.959963984540054


def _placements(label: NDArray[Any], score: Floats) -> tuple[Floats, Floats]:
    """The share of non-clicks below each click, and the share of clicks above each non-click."""
    positive = np.asarray(label) > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    rank = rankdata(score)
    above = (rank[positive] - rankdata(score[positive])) / n
    below = 1 - (rank[~positive] - rankdata(score[~positive])) / m
    return above, below


def _half_width(of_clicks: Floats, of_others: Floats) -> float:
    if min(len(of_clicks), len(of_others)) < 2:
        return float("inf")
    variance = of_clicks.var(ddof=1) / len(of_clicks) + of_others.var(ddof=1) / len(of_others)
    return float(Z95 * np.sqrt(variance))


def auc_interval(label: NDArray[Any], score: Floats) -> tuple[float, float]:
    """AUC and half the width of its 95 % interval; both classes must be present."""
    above, below = _placements(label, score)
    return float(above.mean()), _half_width(above, below)


def drop_interval(label: NDArray[Any], score: Floats, worse: Floats) -> tuple[float, float]:
    """AUC of `score` minus AUC of `worse` on the same rows, and half its 95 % interval."""
    before, after = _placements(label, score), _placements(label, worse)
    above, below = before[0] - after[0], before[1] - after[1]
    return float(above.mean()), _half_width(above, below)
