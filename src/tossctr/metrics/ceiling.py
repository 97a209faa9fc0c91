"""The best attainable metrics on synthetic data, where true click probabilities are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import logit

from tossctr.metrics.registry import METRICS, default_metrics, evaluate


def read_truth(truth: Path, split: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Clicks and true click probabilities of one split ("train" or "test"), in row order."""
    table = pq.read_table(
        truth, columns=["probability", "clicked"], filters=[("split", "=", split)]
    )
    return (
        table["clicked"].to_numpy().astype(np.int64),
        table["probability"].to_numpy().astype(np.float64),
    )


def ceiling(label: NDArray[np.int64], probability: NDArray[np.float64]) -> dict[str, float]:
    """The default metrics of the true probabilities: no model does better in expectation.

    For class-balanced metrics the probabilities are shifted to a balanced prior, which leaves the
    ranking as it is.
    """
    natural = logit(probability)
    balanced = natural - logit(label.mean())
    return {
        name: evaluate(label, balanced if METRICS[name].class_balanced else natural, [name])[name]
        for name in default_metrics()
    }


def lift(auc: float, attainable: float) -> float:
    """The attained share of the lift over chance: (AUC - 0.5) / (AUC_true - 0.5)."""
    return (auc - 0.5) / (attainable - 0.5)
