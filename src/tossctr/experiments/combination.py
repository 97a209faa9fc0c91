"""Methods that combine the logits of several members.

logit_mean  mean of the logits
mean        mean of the probabilities
rank_mean   mean of the ranks, each in the distribution of the member's held-out predictions, so
            that a file can be scored row by row
weights     weighted mean of the logits: the normalized coefficients of a non-negative logistic
            regression; calibration sets scale and offset
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from tossctr.artefact import STRICT
from tossctr.calibration.maps import (
    OFFSET,
    SLOPE,
    Floats,
    Parameters,
    fit_logistic,
    piecewise_linear,
)
from tossctr.config.choices import Method

KNOTS = 1_000  # at most, for the distribution of a member's predictions


@dataclass(frozen=True)
class Combination:
    """From (members, N) logits to (N,) logits, increasing in each member's.

    Attributes:
        weights: one per member, sum 1.
        knots: for `rank_mean`, one per member: logits, then the log odds of their ranks.
    """

    method: Method
    weights: tuple[float, ...]
    knots: tuple[Parameters, ...] = ()

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Raises:
        ValueError: weights or knots that cannot be of a combination.
        """
        weights = np.array(self.weights)
        if not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:  # False for NaN
            raise ValueError("weights must be at least 0 and sum to 1")
        if len(self.knots) != (len(weights) if self.method == "rank_mean" else 0):
            raise ValueError("knots do not match the members")
        for knots in self.knots:
            if not knots or len(knots) % 2 or not np.isfinite(knots).all():
                raise ValueError("knots must be pairs of finite numbers")
            x, y = np.split(np.array(knots), 2)
            if not ((np.diff(x) > 0).all() and (np.diff(y) > 0).all()):
                raise ValueError("knots must be increasing")

    def __call__(self, logits: Floats) -> Floats:
        weights = np.array(self.weights)
        if self.method == "rank_mean":
            ranks = [expit(piecewise_linear(z, k)) for z, k in zip(logits, self.knots, strict=True)]
            return np.asarray(logit(weights @ np.stack(ranks)))
        if self.method == "mean":
            return np.asarray(logit(weights @ expit(logits)))
        return np.asarray(weights @ logits)


def fit_combination(method: Method, logits: Floats, label: Floats, weight: Floats) -> Combination:
    """Fit a method on held-out rows.

    Args:
        method: how to combine.
        logits: (members, N).
        label: (N,) 0 or 1.
        weight: (N,) weights of the rows in the objective.
    """
    members = len(logits)
    equal = (1 / members,) * members
    if method == "rank_mean":
        return Combination(method, equal, tuple(_distribution(z) for z in logits))
    if method != "weights":
        return Combination(method, equal)
    x = np.concatenate([logits, np.ones((1, logits.shape[1]))]).T
    bounds = [(0.0, SLOPE[1])] * members + [OFFSET]
    found = fit_logistic(x, label, weight, [*equal, 0.0], bounds)[:members]
    total = float(found.sum())
    return Combination(method, tuple((found / total).tolist()) if total > 0 else equal)


def _distribution(z: Floats) -> Parameters:
    """The knots of the empirical distribution function."""
    count = min(KNOTS, len(z))
    rank = (np.arange(count) + 0.5) / count
    z_at, first = np.unique(np.quantile(z, rank), return_index=True)
    return (*z_at.tolist(), *logit(rank[first]).tolist())
