"""Reliability diagrams: observed click rates in bins of predicted probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        predicted: mean predicted probability.
        observed: click rate.
        low, high: 95 % Wilson interval of `observed`.
        rows, clicks: counts.
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: int
    clicks: int


@dataclass(frozen=True)
class Reliability:
    """Attributes:
    bins: by ascending prediction.
    error: expected calibration error: the mean of |predicted - observed|, weighted by rows.
    """

    bins: tuple[Bin, ...]
    error: float


def reliability(
    label: NDArray[Any], probability: NDArray[Any], bins: int = 15, *, balanced: bool = False
) -> Reliability:
    """Bin rows by prediction, equally many in each (adaptive bins, Nixon et al. 2019).

    Args:
        label: (N,) 0 or 1.
        probability: (N,) predictions.
        bins: maximum number of bins; equal predictions share one.
        balanced: weigh clicks and non-clicks 50:50, as WLL does; both classes must be present.
    """
    label = np.asarray(label, np.float64)
    probability = np.asarray(probability, np.float64)
    clicks = float(label.sum())
    # The weight of a click relative to that of a non-click.
    odds = (len(label) - clicks) / clicks if balanced else 1.0
    weight = np.where(label > 0.5, odds, 1.0)
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1])
    index = np.searchsorted(edges, probability, side="right")
    rows = np.bincount(index, minlength=bins)
    found = [
        _bin(int(n), int(c), p, odds)
        for n, c, p in zip(
            rows,
            np.bincount(index, label, bins),
            np.bincount(index, weight * probability, bins)
            / np.maximum(np.bincount(index, weight, bins), 1e-300),
            strict=True,
        )
        if n
    ]
    mass = np.bincount(index, weight, bins)[rows > 0]
    gaps = np.array([abs(b.predicted - b.observed) for b in found])
    return Reliability(tuple(found), float(np.average(gaps, weights=mass)))


def _bin(rows: int, clicks: int, predicted: float, odds: float) -> Bin:
    z = float(ndtri(0.975))
    rate = clicks / rows
    centre = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    # Weights shift the log odds of a rate, and so those of its interval's ends.
    ends = np.clip([rate, centre - half, centre + half], 0, 1)
    with np.errstate(divide="ignore"):
        observed, low, high = (float(x) for x in expit(logit(ends) + np.log(odds)))
    return Bin(float(predicted), observed, low, high, rows, clicks)
