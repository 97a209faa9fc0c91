"""Every metric: its name, function and direction. To add one, enter it in `METRICS`.

Names are FuxiCTR's where it has the metric. All are computed in float64 from logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.metrics.predictions import Floats, LabelledPredictions

EPS = 1e-7  # probabilities are clipped this far from 0 and 1, as FuxiCTR does


@dataclass(frozen=True)
class Metric:
    """Attributes:
    title: its heading in reports.
    function: the metric of N rows; NaN where it is undefined.
    higher_is_better: its direction.
    needs_groups: whether each row needs a group (`group_id`).
    shown_by_default: whether every run computes it and tables show it; else only runs that name
        it in `metrics` or `monitor`. False for metrics that need groups.
    ranking: whether it depends on the order of the predictions alone, which calibration keeps.
    class_balanced: whether clicks and non-clicks weigh 50:50 in it, however rare clicks are.
    """

    title: str
    function: Callable[[LabelledPredictions], float]
    higher_is_better: bool
    needs_groups: bool = False
    shown_by_default: bool = False
    ranking: bool = False
    class_balanced: bool = False


def auc(rows: LabelledPredictions) -> float:
    """Area under the ROC curve; NaN where only one class is present."""
    from sklearn.metrics import roc_auc_score  # here, as every reader of a config imports this file

    return float(roc_auc_score(rows.label, rows.score)) if rows.has_both_classes else float("nan")


def logloss(rows: LabelledPredictions) -> float:
    """Mean binary cross entropy in nats."""
    return float(_cross_entropy(rows).mean())


def average_precision(rows: LabelledPredictions) -> float:
    """Average precision (area under the precision-recall steps); NaN without a positive."""
    from sklearn.metrics import average_precision_score

    if not rows.label.any():
        return float("nan")
    return float(average_precision_score(rows.label, rows.score))


def weighted_logloss(rows: LabelledPredictions) -> float:
    """Log loss with clicks and non-clicks weighted 50:50; NaN where only one class is present."""
    if not rows.has_both_classes:
        return float("nan")
    loss = _cross_entropy(rows)
    positive = rows.label > 0.5
    return float(0.5 * loss[positive].mean() + 0.5 * loss[~positive].mean())


def competition_score(rows: LabelledPredictions) -> float:
    """0.5 x AP + 0.5 x 1 / (1 + WLL), as the Toss NEXT ML Challenge ranks."""
    return 0.5 * average_precision(rows) + 0.5 / (1 + weighted_logloss(rows))


def _cross_entropy(rows: LabelledPredictions) -> Floats:
    p = np.clip(rows.probability, EPS, 1 - EPS)
    loss: Floats = -(rows.label * np.log(p) + (1 - rows.label) * np.log1p(-p))
    return loss


def _within_groups(title: str, function: Callable[[LabelledPredictions], float]) -> Metric:
    return Metric(title, function, higher_is_better=True, needs_groups=True, ranking=True)


def ndcg(k: int) -> Metric:
    """NDCG of the first k rows of each group."""
    return _within_groups(f"NDCG@{k}", lambda rows: rows.grouped.ndcg(k))


METRICS: dict[str, Metric] = {
    "AUC": Metric("AUC", auc, higher_is_better=True, shown_by_default=True, ranking=True),
    "logloss": Metric("Log loss", logloss, higher_is_better=False, shown_by_default=True),
    "AP": Metric(
        "Average precision",
        average_precision,
        higher_is_better=True,
        shown_by_default=True,
        ranking=True,
    ),
    "WLL": Metric(
        "WLL", weighted_logloss, higher_is_better=False, shown_by_default=True, class_balanced=True
    ),
    "competition_score": Metric(
        "Competition score",
        competition_score,
        higher_is_better=True,
        shown_by_default=True,
        class_balanced=True,
    ),
    # Zhou et al., KDD 2018: weighted by the rows of a group.
    "gAUC": _within_groups("gAUC", lambda rows: rows.grouped.mean_auc(weighted=True)),
    "avgAUC": _within_groups("avgAUC", lambda rows: rows.grouped.mean_auc(weighted=False)),
    "MRR": _within_groups("MRR", lambda rows: rows.grouped.reciprocal_rank()),
}

# Metrics with a positive integer N in their name.
PARAMETRIZED: dict[str, Callable[[int], Metric]] = {"NDCG(k=N)": ndcg}


def find_metric(name: str) -> Metric:
    """The metric of that name, such as `AUC` or `NDCG(k=5)`.

    Raises:
        KeyError: there is none.
    """
    found = re.fullmatch(r"(.+=)([1-9]\d*)(\))", name)
    if found and (pattern := f"{found[1]}N{found[3]}") in PARAMETRIZED:
        return PARAMETRIZED[pattern](int(found[2]))
    return METRICS[name]


def is_metric(name: str) -> bool:
    """Whether there is a metric of that name."""
    try:
        find_metric(name)
    except KeyError:
        return False
    return True


def default_metrics() -> tuple[str, ...]:
    """The names of the metrics that every run computes and tables show."""
    return tuple(name for name, metric in METRICS.items() if metric.shown_by_default)


def reported(*requested: Iterable[str]) -> tuple[str, ...]:
    """The default metrics, then the requested ones, each once."""
    return tuple(dict.fromkeys([*default_metrics(), *(n for names in requested for n in names)]))


def evaluate(
    label: NDArray[Any],
    logit: NDArray[Any],
    names: Sequence[str] | None = None,
    *,
    group: NDArray[Any] | None = None,
    ranked_by: NDArray[Any] | None = None,
) -> dict[str, float]:
    """The named metrics of predictions.

    Args:
        label: (N,) 0 or 1.
        logit: (N,) log odds; they rank more finely than float32 probabilities.
        names: None takes the default metrics.
        group: (N,) the group of each row, for metrics within groups.
        ranked_by: (N,) log odds before calibration, which ranking metrics use; None: `logit`.

    Raises:
        KeyError: an unknown metric name.
        ValueError: a metric within groups without `group`.
    """
    logit = np.asarray(logit, np.float64)
    ranked_by = logit if ranked_by is None else np.asarray(ranked_by, np.float64)
    rows = LabelledPredictions(np.asarray(label, np.float64), logit, ranked_by, group)
    names = default_metrics() if names is None else names
    return {name: find_metric(name).function(rows) for name in names}
