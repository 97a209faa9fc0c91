"""All that a report says of one run, of folds or of a blend, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.calibration.calibrate import Calibration
from tossctr.calibration.objectives import AIMS, Aim
from tossctr.config.choices import Objective
from tossctr.config.schema import Experiment
from tossctr.inference.predictor import Scorer, members_of
from tossctr.report.distributions import Distributions
from tossctr.report.importance import Attention, Importance
from tossctr.report.members import Members
from tossctr.report.sample import Scored
from tossctr.report.slices import Slice
from tossctr.runs.run_folder import Run
from tossctr.trees.lightgbm import LightGBM


@dataclass(frozen=True)
class Stored:
    """What the prepared data say.

    Attributes:
        slices: by field.
        distributions: train beside test.
        prepare: `prepare.json`.
        bytes: of the data set's arrays.
        attainable: of the true probabilities `truth` (n,); None where nobody knows them.
        hashes: SHA-256 of the raw files and of the stores, by file.
    """

    slices: Mapping[str, list[Slice]]
    distributions: Distributions
    prepare: Mapping[str, Any]
    bytes: int
    attainable: Mapping[str, float] | None
    truth: NDArray[np.float64] | None
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class RunReport:
    """One run, the folds of one, or a blend.

    Attributes:
        name: its folder's name, or as much of its path as tells it from the others.
        parts: by name a run that stands for each config in it.
        scored: the held-out rows that were looked at: of a run the validation part's.
        metrics: on them, of the raw predictions.
        half_width: of the 95% interval of each of `best`; NaN where there are too few clicks.
        baseline: of the best constant: the prior, or 1/2 where both classes weigh the same.
        calibration: what calibrating to an objective gives, out of fold.
        hashes: SHA-256 of its own files.
        stored: None where the data of folds or a blend are not at hand, which they do not need.
        train_loss: optimiser steps and the loss of their batches.
        importance, importance_rows: of fields, the largest first; of a single run.
        members: of folds and blends.
    """

    name: str
    run: Run | Scorer
    parts: Mapping[str, Run]
    scored: Scored
    metrics: Mapping[str, float]
    half_width: Mapping[str, float]
    baseline: Mapping[str, float]
    calibration: Calibration
    hashes: Mapping[str, str]
    stored: Stored | None
    train_loss: tuple[NDArray[np.float64], NDArray[np.float64]] = field(
        default_factory=lambda: (np.zeros(0), np.zeros(0))
    )
    importance: list[Importance] = field(default_factory=list)
    importance_rows: int = 0
    attention: Attention | None = None
    members: Members | None = None

    @property
    def slices(self) -> Mapping[str, list[Slice]]:
        return self.stored.slices if self.stored else {}

    @property
    def attainable(self) -> Mapping[str, float] | None:
        return self.stored.attainable if self.stored else None

    @property
    def truth(self) -> NDArray[np.float64] | None:
        return self.stored.truth if self.stored else None

    @property
    def best(self) -> Mapping[str, float]:
        """The default metrics, and as `calibrated` the objective's after calibration."""
        return {**self.metrics, "calibrated": self.calibration.after[self.aim.metric]}

    @property
    def objective(self) -> Objective:
        """What the calibration is for."""
        return self.calibration.calibrator.objective

    @property
    def aim(self) -> Aim:
        """The same, as numbers."""
        return AIMS[self.objective]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All that it is made of."""
        return tuple(run for member in members_of(self.run) for run in member)

    @property
    def experiment(self) -> Experiment:
        return self.run.experiment

    @property
    def history(self) -> list[dict[str, float]]:
        """One row a validation, of a single run."""
        return self.run.metrics.get("history", []) if isinstance(self.run, Run) else []

    @property
    def kept(self) -> Mapping[str, float]:
        """The row of the history whose weights were kept."""
        kept: Mapping[str, float] = self.runs[0].metrics["best"]
        return kept

    @property
    def boosted(self) -> bool:
        """A single run of trees: its epochs are rounds."""
        return isinstance(self.run, Run) and isinstance(self.run.model, LightGBM)

    @property
    def gain(self) -> Mapping[str, float]:
        """Of trees: share of the whole gain by column."""
        return self.run.metrics.get("importance", {}) if isinstance(self.run, Run) else {}
