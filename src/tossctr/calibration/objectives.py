"""What each objective of a data set means: its metric, and how much a click counts in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tossctr.config.choices import Objective


@dataclass(frozen=True)
class Aim:
    """How predictions are judged.

    Attributes:
        metric: a name in `METRICS`.
        sign: 1 where more of it is better, -1 where less is.
        balanced: clicks and non-clicks weigh 50:50, whatever the share of clicks.
        scores: the metrics that tables of it show, its own first.
    """

    metric: str
    sign: int
    balanced: bool
    scores: tuple[str, ...]


_LOGLOSS = Aim("logloss", -1, False, ("logloss", "AP", "AUC"))

AIMS: Mapping[Objective, Aim] = {
    "competition_score": Aim(
        "competition_score", 1, True, ("competition_score", "AP", "WLL", "AUC")
    ),
    "logloss": _LOGLOSS,
    "raw": _LOGLOSS,  # judged alike, but never calibrated
}
