"""How the logits of several members become one.

logit_mean  mean of the logits
mean        mean of the probabilities
rank_mean   mean of the ranks that members' predictions have among their held-out ones, so that
            a file can be scored row by row
weights     mean of the logits with weights >= 0 that sum to 1: those of a logistic regression
            with non-negative coefficients, whose scale and offset are left to calibration
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from tossctr.calibration.maps import OFFSET, SLOPE, Floats, Parameters, logistic, polygon
from tossctr.config.choices import Method

KNOTS = 1_000  # of a member's distribution


@dataclass(frozen=True)
class Combination:
    """(members, N) logits to (N,); rising in each member.

    Attributes:
        weights: of the members, sum 1.
        knots: of each member, for ranks: logits, then the log odds of their ranks.
    """

    method: Method
    weights: tuple[float, ...]
    knots: tuple[Parameters, ...] = ()

    def __call__(self, logits: Floats) -> Floats:
        weights = np.array(self.weights)
        if self.method == "rank_mean":
            ranks = [expit(polygon(z, k)) for z, k in zip(logits, self.knots, strict=True)]
            return np.asarray(logit(weights @ np.stack(ranks)))
        if self.method == "mean":
            return np.asarray(logit(weights @ expit(logits)))
        return np.asarray(weights @ logits)


def fit_combination(method: Method, logits: Floats, label: Floats, weight: Floats) -> Combination:
    """Find what a method needs on held-out rows.

    Args:
        method: which.
        logits: (members, N).
        label: (N,) 0 or 1.
        weight: (N,) of the rows, in the objective.
    """
    members = len(logits)
    equal = (1 / members,) * members
    if method == "rank_mean":
        return Combination(method, equal, tuple(_distribution(z) for z in logits))
    if method != "weights":
        return Combination(method, equal)
    x = np.concatenate([logits, np.ones((1, logits.shape[1]))]).T
    bounds = [(0.0, SLOPE[1])] * members + [OFFSET]
    found = logistic(x, label, weight, [*equal, 0.0], bounds)[:members]
    total = float(found.sum())
    return Combination(method, tuple((found / total).tolist()) if total > 0 else equal)


def _distribution(z: Floats) -> Parameters:
    """The empirical distribution function, as knots."""
    count = min(KNOTS, len(z))
    rank = (np.arange(count) + 0.5) / count
    place, first = np.unique(np.quantile(z, rank), return_index=True)
    return (*place.tolist(), *logit(rank[first]).tolist())
