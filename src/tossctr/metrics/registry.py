"""Metrics under FuxiCTR's names, and the competition's own, in float64 from logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tossctr.metrics.grouped import Groups, is_grouped

Floats = NDArray[np.float64]
EPS = 1e-7  # probabilities are kept this far from 0 and 1, as FuxiCTR does


def auc(label: Floats, probability: Floats) -> float:
    """Area under the ROC curve; NaN where only one class is present."""
    from sklearn.metrics import roc_auc_score  # here, as every reader of a config imports this file

    return float(roc_auc_score(label, probability)) if _both_classes(label) else float("nan")


def logloss(label: Floats, probability: Floats) -> float:
    """Mean binary cross entropy in nats."""
    return float(_cross_entropy(label, probability).mean())


def average_precision(label: Floats, probability: Floats) -> float:
    """Average precision (area under the precision-recall steps); NaN without a positive."""
    from sklearn.metrics import average_precision_score

    if not label.any():
        return float("nan")
    return float(average_precision_score(label, probability))


def weighted_logloss(label: Floats, probability: Floats) -> float:
    """Log loss with clicks and non-clicks weighted 50:50; NaN where only one class is present."""
    if not _both_classes(label):
        return float("nan")
    loss = _cross_entropy(label, probability)
    positive = label > 0.5
    return float(0.5 * loss[positive].mean() + 0.5 * loss[~positive].mean())


def competition_score(label: Floats, probability: Floats) -> float:
    """0.5 x AP + 0.5 x 1 / (1 + WLL), as the Toss NEXT ML Challenge ranks."""
    ap = average_precision(label, probability)
    return 0.5 * ap + 0.5 / (1 + weighted_logloss(label, probability))


class Metric(NamedTuple):
    """A function of labels (N,) and probabilities (N,), and which way it is better."""

    of: Callable[[Floats, Floats], float]
    better: Literal["max", "min"]


# Computed of every run and shown in every table. Metrics within groups are computed where asked for
# (they need a group for each row), and of all of them larger is better.
METRICS: Mapping[str, Metric] = {
    "AUC": Metric(auc, "max"),
    "logloss": Metric(logloss, "min"),
    "AP": Metric(average_precision, "max"),
    "WLL": Metric(weighted_logloss, "min"),
    "competition_score": Metric(competition_score, "max"),
}


def is_metric(name: str) -> bool:
    """Whether `evaluate` knows a metric of that name."""
    return name in METRICS or is_grouped(name)


def better_when(name: str) -> Literal["max", "min"]:
    """Which way a metric is better.

    Raises:
        KeyError: an unknown metric name.
    """
    return "max" if is_grouped(name) else METRICS[name].better


def reported(*more: Iterable[str]) -> tuple[str, ...]:
    """The names in `METRICS`, which every table may show, then those asked for besides."""
    return tuple(dict.fromkeys([*METRICS, *(name for names in more for name in names)]))


def evaluate(
    label: NDArray[Any],
    logit: NDArray[Any],
    names: Sequence[str] = tuple(METRICS),
    *,
    group: NDArray[Any] | None = None,
) -> dict[str, float]:
    """The named metrics of predictions.

    Args:
        label: (N,) 0 or 1.
        logit: (N,) log odds; they rank more finely than float32 probabilities.
        names: of `METRICS`, or grouped ones (`gAUC`, `avgAUC`, `MRR`, `NDCG(k=5)`).
        group: (N,) the group of each row, which grouped metrics need.

    Raises:
        KeyError: an unknown metric name.
        ValueError: a grouped metric without `group`.
    """
    from scipy.special import expit

    label = np.asarray(label, np.float64)
    logit = np.asarray(logit, np.float64)
    probability = expit(logit)
    values = {name: METRICS[name].of(label, probability) for name in names if name in METRICS}
    others = [name for name in names if name not in METRICS]
    if others:
        if group is None:
            raise ValueError(f"{others} need a group for each row")
        groups = Groups.of(label, logit, group)
        values |= {name: groups.metric(name) for name in others}
    return {name: values[name] for name in names}


def _both_classes(label: Floats) -> bool:
    return bool(label.min() != label.max()) if len(label) else False


def _cross_entropy(label: Floats, probability: Floats) -> Floats:
    p = np.clip(probability, EPS, 1 - EPS)
    loss: Floats = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    return loss
