"""Scores in expectation over clicks, for synthetic rows with known click probabilities.

Each row counts as a click with its probability and as a non-click with the rest. That removes the
noise of one draw, which is larger than the differences between models. (AUC, AP and WLL are ratios
of sums over clicks; these are the ratios of the expected sums.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = NDArray[np.float64]


def expected_auc(logit: Floats, probability: Floats) -> float:
    """Area under the ROC curve."""
    label, score, weight = _as_both(logit, probability)
    return float(roc_auc_score(label, score, sample_weight=weight))


def expected_score(logit: Floats, probability: Floats) -> dict[str, float]:
    """AP, WLL and the competition score.

    Args:
        logit: (N,) predicted log odds.
        probability: (N,) true probabilities.
    """
    label, score, weight = _as_both(logit, probability)
    ap = float(average_precision_score(label, score, sample_weight=weight))
    clicks = np.average(np.logaddexp(0, -logit), weights=probability)
    others = np.average(np.logaddexp(0, logit), weights=1 - probability)
    wll = float(0.5 * clicks + 0.5 * others)
    return {"AP": ap, "WLL": wll, "competition_score": 0.5 * ap + 0.5 / (1 + wll)}


def _as_both(logit: Floats, probability: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """(2 N,) labels, predictions and weights: each row as a click, then as a non-click."""
    label = np.repeat([1, 0], len(probability))
    return label, np.tile(logit, 2), np.concatenate([probability, 1 - probability])
