"""How far a metric may be off by the luck of which rows were drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.evaluation.metrics import METRICS, evaluate

GROUPS = 20


def standard_errors(
    label: NDArray[Any], logit: NDArray[Any], *, seed: int = 2024
) -> dict[str, float]:
    """Standard error of each metric on these N rows.

    By batch means: the metric within each of 20 random groups of rows varies sqrt(20) times as much
    as on all of them. NaN where groups are too small to have clicks.
    """
    group = np.random.default_rng(seed).permutation(len(label)) % GROUPS
    values = [evaluate(label[group == g], logit[group == g]) for g in range(GROUPS)]
    return {
        name: float(np.std([v[name] for v in values], ddof=1)) / math.sqrt(GROUPS)
        for name in METRICS
    }


def interval(value: float, error: float, rows: int, test_rows: int) -> tuple[float, float]:
    """The 95 % interval for the metric of another part with `test_rows` rows of the same origin,
    given its value and standard error on `rows`: both parts are drawn by chance."""
    half = 1.96 * error * math.sqrt(1 + rows / test_rows)
    return value - half, value + half
