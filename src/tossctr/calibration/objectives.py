"""How each objective of a data set is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tossctr.config.choices import Objective
from tossctr.metrics.registry import METRICS


@dataclass(frozen=True)
class Aim:
    """How predictions are judged.

    Attributes:
        scores: names in `METRICS` that tables show; predictions are judged by the first.
    """

    scores: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric that predictions are judged by."""
        return self.scores[0]

    @property
    def sign(self) -> int:
        """1 if a higher metric is better, else -1."""
        return 1 if METRICS[self.metric].higher_is_better else -1

    @property
    def balanced(self) -> bool:
        """Whether clicks and non-clicks weigh 50:50 in the metric."""
        return METRICS[self.metric].class_balanced


_LOGLOSS = Aim(("logloss", "AP", "AUC"))

AIMS: Mapping[Objective, Aim] = {
    "competition_score": Aim(("competition_score", "AP", "WLL", "AUC")),
    "logloss": _LOGLOSS,
    "raw": _LOGLOSS,  # judged the same way, but never calibrated
}
