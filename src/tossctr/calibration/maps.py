"""Rising maps of logits to logits, each with few parameters and a weighted fit.

Each map is strictly rising, so a ranking stays as it is to the last row (and with it AUC and AP).

    shift        z
    temperature  a z                                  Guo et al., ICML 2017
    platt        a z + c                              Platt 1999
    beta         a log p - b log(1 - p) + c           Kull et al., AISTATS 2017
    isotonic     a rising polygon through the pool-adjacent-violators blocks, whose steps would tie
                 rows; slope 1 outside it             Zadrozny and Elkan, KDD 2002
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Parameters = tuple[float, ...]

SLOPE = (1e-2, 1e2)  # of what rises; far from rounding two rows into one
OFFSET = (-30.0, 30.0)
MIN_SLOPE = 1e-3  # of the polygon


@dataclass(frozen=True)
class Map:
    """Attributes:
    fit: logits (N,), labels (N,), weights (N,) to parameters.
    apply: logits and parameters to logits.
    """

    fit: Callable[[Floats, Floats, Floats], Parameters]
    apply: Callable[[Floats, Parameters], Floats]


def cross_entropy(z: Floats, label: Floats) -> Floats:
    """(N,) binary cross entropy of logits in nats, exact however large they are."""
    loss: Floats = np.logaddexp(0, z) - label * z
    return loss


def logistic(
    x: Floats,
    label: Floats,
    weight: Floats,
    start: Sequence[float],
    bounds: Sequence[tuple[float, float]],
) -> Floats:
    """(k,) coefficients within bounds that minimise the weighted cross entropy of x (N, k)."""
    from scipy.optimize import minimize  # here, as reading a calibration imports this file

    weight = weight / weight.sum()

    def loss(w: Floats) -> tuple[float, Floats]:
        predicted = x @ w
        gradient = x.T @ (weight * (expit(predicted) - label))
        return float(weight @ cross_entropy(predicted, label)), gradient

    options = {"ftol": 1e-14, "gtol": 1e-9}
    found = minimize(
        loss, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return np.asarray(found.x, np.float64)


def _linear(columns: Callable[[Floats], Floats], slopes: int) -> Map:
    """Logistic regression on (N, k) columns, of which the first `slopes` have weights above 0."""

    def fit(z: Floats, label: Floats, weight: Floats) -> Parameters:
        x = columns(z)
        rest = x.shape[1] - slopes
        start = [1.0] * slopes + [0.0] * rest
        found = logistic(x, label, weight, start, [SLOPE] * slopes + [OFFSET] * rest)
        return tuple(found.tolist())

    def apply(z: Floats, parameters: Parameters) -> Floats:
        mapped: Floats = columns(z) @ np.asarray(parameters)
        return mapped

    return Map(fit, apply)


def _beta_columns(z: Floats) -> Floats:
    columns: Floats = np.stack([-np.logaddexp(0, -z), np.logaddexp(0, z), np.ones_like(z)], axis=1)
    return columns


def _fit_isotonic(z: Floats, label: Floats, weight: Floats) -> Parameters:
    """The polygon's knots: all places, then all heights (logits)."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(z, label, weight).predict(z)
    height, block = np.unique(fitted, return_inverse=True)
    place = np.bincount(block, weight * z) / np.bincount(block, weight)
    inner = height[(height > 0) & (height < 1)]
    if not len(inner):
        inner = np.array([(label.sum() + 0.5) / (len(label) + 1)])
    # A block of one class says "rarer than what was seen", not "never".
    height = logit(np.clip(height, inner.min() / 2, 1 - (1 - inner.max()) / 2))
    for i in range(1, len(height)):
        height[i] = max(height[i], height[i - 1] + MIN_SLOPE * (place[i] - place[i - 1]))
    return (*place.tolist(), *height.tolist())


def polygon(z: Floats, parameters: Parameters) -> Floats:
    """(N,) heights at z: linear between the knots, slope 1 outside them."""
    place, height = np.split(np.asarray(parameters), 2)
    outside = np.minimum(z - place[0], 0) + np.maximum(z - place[-1], 0)
    found: Floats = np.interp(z, place, height) + outside
    return found


# From the simplest to the most flexible.
MAPS: Mapping[str, Map] = {
    "shift": Map(lambda z, label, weight: (), lambda z, parameters: z),
    "temperature": _linear(lambda z: z[:, None], 1),
    "platt": _linear(lambda z: np.stack([z, np.ones_like(z)], axis=1), 1),
    "beta": _linear(_beta_columns, 2),
    "isotonic": Map(_fit_isotonic, polygon),
}
