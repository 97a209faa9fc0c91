"""The monitor: a weighted sum of metrics, by which the weights of a training are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from tossctr.metrics.registry import better_when, is_metric

Mode = Literal["max", "min"]

MIN_IMPROVEMENT = 1e-6
_OPPOSITE: Mapping[Mode, Mode] = {"max": "min", "min": "max"}


def modes_of(monitor: Mapping[str, float]) -> set[Mode]:
    """How each weighted metric, and so the sum, is better: one way unless they contradict."""
    return {
        better_when(name) if weight > 0 else _OPPOSITE[better_when(name)]
        for name, weight in monitor.items()
        if weight and is_metric(name)
    }


def mode_of(monitor: Mapping[str, float]) -> Mode:
    """Which way the sum is better, where its metrics do not contradict each other."""
    return "min" if modes_of(monitor) == {"min"} else "max"


def sign_of(mode: Mode) -> float:
    """What makes a larger monitor the better one when it is multiplied by this."""
    return 1.0 if mode == "max" else -1.0


class Validations:
    """The validations of a training in their order, and the best of them.

    Attributes:
        history: one row a validation: epoch, step, metrics, monitor, learning rate.
        best_row: the row whose monitor is best; None before any that is a number.
    """

    def __init__(self, monitor: Mapping[str, float], mode: Mode) -> None:
        self._monitor, self._sign = monitor, sign_of(mode)
        self.history: list[dict[str, float]] = []
        self.best_row: dict[str, float] | None = None

    def add(
        self, metrics: Mapping[str, float], *, epoch: int, step: int, learning_rate: float
    ) -> bool:
        """Append a validation.

        Returns:
            Whether it is the best one, by more than 1e-6; never where the monitor is NaN.
        """
        value = sum(weight * metrics[name] for name, weight in self._monitor.items())
        self.history.append(
            {"epoch": epoch, "step": step, **metrics, "monitor": value,
             "learning_rate": learning_rate}
        )  # fmt: skip
        best = -math.inf if self.best_row is None else self._sign * self.best_row["monitor"]
        if not self._sign * value > best + MIN_IMPROVEMENT:  # NaN too
            return False
        self.best_row = self.history[-1]
        return True
