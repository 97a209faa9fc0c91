"""Calibration maps: strictly increasing functions of logits, fit with row weights.

As they are strictly increasing, they keep the ranking of rows, and with it AUC and AP.

    shift        z
    temperature  a z                                  Guo et al., ICML 2017
    platt        a z + c                              Platt 1999
    beta         a log p - b log(1 - p) + c           Kull et al., AISTATS 2017
    isotonic     piecewise linear through the means of the pool-adjacent-violators blocks, as their
                 steps would tie rows; slope 1 outside           Zadrozny and Elkan, KDD 2002
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Parameters = tuple[float, ...]
MapName = Literal["shift", "temperature", "platt", "beta", "isotonic"]

SLOPE = (1e-2, 1e2)  # bounds; a flatter map could round two logits to one
OFFSET = (-30.0, 30.0)
MIN_SLOPE = 1e-3  # of the isotonic map


@dataclass(frozen=True)
class Map:
    """Attributes:
    fit: from logits (N,), labels (N,) and row weights (N,) to parameters.
    apply: from logits (N,) and parameters to logits (N,).
    """

    fit: Callable[[Floats, Floats, Floats], Parameters]
    apply: Callable[[Floats, Parameters], Floats]


def cross_entropy(z: Floats, label: Floats) -> Floats:
    """(N,) binary cross entropy of logits in nats, stable for large ones."""
    loss: Floats = np.logaddexp(0, z) - label * z
    return loss


def fit_logistic(
    x: Floats,
    label: Floats,
    weight: Floats,
    start: Sequence[float],
    bounds: Sequence[tuple[float, float]],
) -> Floats:
    """Coefficients (k,) of a weighted logistic regression on x (N, k), within bounds."""
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
    """Logistic regression on k columns of logits, the first `slopes` with coefficients above 0."""

    def fit(z: Floats, label: Floats, weight: Floats) -> Parameters:
        x = columns(z)
        rest = x.shape[1] - slopes
        start = [1.0] * slopes + [0.0] * rest
        found = fit_logistic(x, label, weight, start, [SLOPE] * slopes + [OFFSET] * rest)
        return tuple(found.tolist())

    def apply(z: Floats, parameters: Parameters) -> Floats:
        mapped: Floats = columns(z) @ np.asarray(parameters)
        return mapped

    return Map(fit, apply)


def _beta_columns(z: Floats) -> Floats:
    columns: Floats = np.stack([-np.logaddexp(0, -z), np.logaddexp(0, z), np.ones_like(z)], axis=1)
    return columns


def _fit_isotonic(z: Floats, label: Floats, weight: Floats) -> Parameters:
    """The knots of `piecewise_linear`."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(z, label, weight).predict(z)
    rate, block = np.unique(fitted, return_inverse=True)
    x = np.bincount(block, weight * z) / np.bincount(block, weight)
    inner = rate[(rate > 0) & (rate < 1)]
    if not len(inner):
        inner = np.array([(label.sum() + 0.5) / (len(label) + 1)])
    # Blocks of one class get a rate beyond the others', not 0 or 1.
    y = logit(np.clip(rate, inner.min() / 2, 1 - (1 - inner.max()) / 2))
    for i in range(1, len(y)):
        y[i] = max(y[i], y[i - 1] + MIN_SLOPE * (x[i] - x[i - 1]))
    return (*x.tolist(), *y.tolist())


def piecewise_linear(z: Floats, knots: Parameters) -> Floats:
    """Linear interpolation at z (N,), with slope 1 outside the knots: all their x, then all y."""
    x, y = np.split(np.asarray(knots), 2)
    outside = np.minimum(z - x[0], 0) + np.maximum(z - x[-1], 0)
    found: Floats = np.interp(z, x, y) + outside
    return found


# From the simplest to the most flexible.
MAPS: Mapping[MapName, Map] = {
    "shift": Map(lambda z, label, weight: (), lambda z, parameters: z),
    "temperature": _linear(lambda z: z[:, None], 1),
    "platt": _linear(lambda z: np.stack([z, np.ones_like(z)], axis=1), 1),
    "beta": _linear(_beta_columns, 2),
    "isotonic": Map(_fit_isotonic, piecewise_linear),
}
