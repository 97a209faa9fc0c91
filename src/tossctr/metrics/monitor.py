"""The monitor: the weighted sum of metrics that picks the best weights of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from tossctr.metrics.registry import find_metric, is_metric

Mode = Literal["max", "min"]

MIN_IMPROVEMENT = 1e-6


def modes_of(monitor: Mapping[str, float]) -> set[Mode]:
    """The direction of each weighted metric; both where they contradict each other."""
    return {
        "max" if find_metric(name).higher_is_better == (weight > 0) else "min"
        for name, weight in monitor.items()
        if weight and is_metric(name)
    }


def mode_of(monitor: Mapping[str, float]) -> Mode:
    """The direction of the sum, if its metrics do not contradict each other."""
    return "min" if modes_of(monitor) == {"min"} else "max"


def sign_of(mode: Mode) -> float:
    """The factor that makes a higher monitor the better one."""
    return 1.0 if mode == "max" else -1.0


class Validations:
    """The validations of a training in order, and the best one.

    Attributes:
        history: one row per validation: epoch, step, metrics, monitor, learning rate.
        best_row: the row with the best monitor; None while every monitor was NaN.
        without_gain: validations since the best one.
    """

    def __init__(self, monitor: Mapping[str, float], mode: Mode) -> None:
        self._monitor, self._sign = monitor, sign_of(mode)
        self.history: list[dict[str, float]] = []
        self.best_row: dict[str, float] | None = None
        self.without_gain = 0

    def add(
        self, metrics: Mapping[str, float], *, epoch: int, step: int, learning_rate: float
    ) -> bool:
        """Append a validation.

        Returns:
            Whether it is the best so far, by more than 1e-6; False if the monitor is NaN.
        """
        value = sum(weight * metrics[name] for name, weight in self._monitor.items())
        self.history.append(
            {"epoch": epoch, "step": step, **metrics, "monitor": value,
             "learning_rate": learning_rate}
        )  # fmt: skip
        best = -math.inf if self.best_row is None else self._sign * self.best_row["monitor"]
        if not self._sign * value > best + MIN_IMPROVEMENT:  # NaN too
            self.without_gain += 1
            return False
        self.best_row, self.without_gain = self.history[-1], 0
        return True
