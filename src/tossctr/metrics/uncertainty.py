"""The uncertainty of metrics: over folds or seeds, and by the rows that were drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.artefact import STRICT
from tossctr.metrics.registry import METRICS, evaluate

GROUPS = 20


@dataclass(frozen=True)
class MeanStd:
    """A metric over folds or seeds: mean, sample standard deviation, standard error of the mean.

    Of one value, the latter two are 0.
    """

    mean: float
    std: float
    error: float

    __pydantic_config__ = STRICT

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.fmean(values), std, std / len(values) ** 0.5)


def standard_errors(
    label: NDArray[Any], logit: NDArray[Any], *, seed: int = 2024
) -> dict[str, float]:
    """Standard error of each default metric on N rows.

    A delete-a-group jackknife (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 11): the metrics without each of 20 random groups of rows in turn. Metrics computed
    within each group would mislead: the AP of a few clicks varies by more than their number
    explains.

    Args:
        label: (N,) 0 or 1.
        logit: (N,) log odds.
        seed: of the groups.

    Returns:
        By name of each default metric; NaN for ranking and class-balanced metrics if there are
        fewer than 20 clicks or non-clicks.
    """
    label, logit = np.asarray(label), np.asarray(logit)
    group = np.random.default_rng(seed).permutation(len(label)) % GROUPS
    order = np.argsort(-logit, kind="stable")  # sorting sorted rows is fast
    label, logit, group = label[order], logit[order], group[order]
    without = [evaluate(label[group != g], logit[group != g]) for g in range(GROUPS)]
    clicks = int((label > 0.5).sum())
    few = min(clicks, len(label) - clicks) < GROUPS

    def error(name: str) -> float:
        metric = METRICS[name]
        if few and (metric.ranking or metric.class_balanced):
            return float("nan")
        return float(np.std([metrics[name] for metrics in without]) * math.sqrt(GROUPS - 1))

    return {name: error(name) for name in without[0]}
