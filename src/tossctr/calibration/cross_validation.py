"""Cross-validation over held-out rows: folds, cross-fitted predictions, selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tossctr.metrics.uncertainty import MeanStd

Name = TypeVar("Name", bound=str)
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def stratified_folds(
    label: NDArray[Any], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(N,) random fold of each row, with the same share of clicks in each fold."""
    fold = np.empty(len(label), np.int64)
    for of_class in (label > 0.5, label <= 0.5):
        fold[of_class] = rng.permutation(int(of_class.sum())) % folds
    return fold


def cross_fit(fold: NDArray[Any], predict: Callable[[Mask, Mask], Floats]) -> Floats:
    """(N,) predictions of each fold's rows by a model that was fit on the other folds.

    Args:
        fold: (N,) from 0.
        predict: given the rows to fit on and the rows to predict, predicts the latter.
    """
    result = np.empty(len(fold))
    for k in range(int(fold.max()) + 1):
        result[fold == k] = predict(fold != k, fold == k)
    return result


def one_standard_error(losses: Mapping[Name, Floats]) -> Name:
    """The first whose mean loss over folds is at most one standard error of the difference above
    the lowest.

    Args:
        losses: (folds,) by name, the simplest first.
    """
    best = min(losses.values(), key=lambda loss: float(loss.mean()))
    above = {name: MeanStd.of((loss - best).tolist()) for name, loss in losses.items()}
    return next(name for name, of in above.items() if of.mean <= of.error)
