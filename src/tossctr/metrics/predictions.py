"""What metrics are computed of: labels, predictions and groups of N rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.metrics.grouped import GroupedRows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledPredictions:
    """N rows with their predictions.

    Attributes:
        label: (N,) 0 or 1.
        logit: (N,) log odds.
        ranked_by: (N,) log odds whose order ranks the rows: `logit`, or what it was calibrated
            from.
        group: (N,) the group of each row, or None.
    """

    label: Floats
    logit: Floats
    ranked_by: Floats
    group: NDArray[Any] | None = None

    @cached_property
    def probability(self) -> Floats:
        """(N,) predicted click probability."""
        return np.asarray(expit(self.logit))

    @cached_property
    def score(self) -> Floats:
        """(N,) what ranking metrics compare: the probability before calibration."""
        return (
            self.probability if self.ranked_by is self.logit else np.asarray(expit(self.ranked_by))
        )

    @cached_property
    def grouped(self) -> GroupedRows:
        """The rows sorted by group.

        Raises:
            ValueError: no groups.
        """
        if self.group is None:
            raise ValueError("metrics within groups need a group for each row")
        return GroupedRows.sort(self.label, self.ranked_by, self.group)

    @property
    def has_both_classes(self) -> bool:
        """Whether there are clicks and non-clicks."""
        return bool(self.label.min() != self.label.max()) if len(self.label) else False
