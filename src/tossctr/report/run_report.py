"""Everything a report shows of one run, of folds or of a blend, as numbers."""

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
from tossctr.families.registry import family_of
from tossctr.inference.predict import FittedModel
from tossctr.inference.predictor import Predictor
from tossctr.report.distributions import Distributions
from tossctr.report.importance import Attention, Importance
from tossctr.report.members import Members
from tossctr.report.sample import Scored
from tossctr.report.segments import Segment
from tossctr.runs.run import Run
from tossctr.training.family import Family


@dataclass(frozen=True)
class DataReport:
    """What is known from the prepared data.

    Attributes:
        segments: by field.
        distributions: training rows compared with test rows.
        prepare: the content of `prepare.json`.
        bytes: size of the arrays on disk.
        attainable: metrics of the true probabilities `truth` (n,), for synthetic rows only.
        hashes: SHA-256 of the raw files and of the stores, by file.
    """

    segments: Mapping[str, list[Segment]]
    distributions: Distributions
    prepare: Mapping[str, Any]
    bytes: int
    attainable: Mapping[str, float] | None
    truth: NDArray[np.float64] | None
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class RunReport:
    """A run, the folds of a run, or a blend.

    Attributes:
        name: the folder's name, with as many parents as make it unique in the report.
        configs: one run per distinct config, by name.
        scored: the sampled held-out rows: validation rows of a run, else out-of-fold rows.
        metrics: on `scored`, of the raw predictions.
        half_width: half the 95 % interval of each of `best`; NaN if there are too few clicks.
        baseline: metrics of the best constant prediction: the click rate, or 1/2 where both classes
            are weighted equally.
        calibration: the out-of-fold calibration for the objective.
        hashes: SHA-256 of the run's own files.
        data: None if the data of folds or of a blend were not found.
        train_loss: optimiser steps and the losses of their batches.
        importance, importance_rows: of fields, the largest first; single runs only.
        members: of folds and blends.
    """

    name: str
    run: Predictor
    configs: Mapping[str, FittedModel]
    scored: Scored
    metrics: Mapping[str, float]
    half_width: Mapping[str, float]
    baseline: Mapping[str, float]
    calibration: Calibration
    hashes: Mapping[str, str]
    data: DataReport | None
    train_loss: tuple[NDArray[np.float64], NDArray[np.float64]] = field(
        default_factory=lambda: (np.zeros(0), np.zeros(0))
    )
    importance: list[Importance] = field(default_factory=list)
    importance_rows: int = 0
    attention: Attention | None = None
    members: Members | None = None

    @property
    def segments(self) -> Mapping[str, list[Segment]]:
        return self.data.segments if self.data else {}

    @property
    def attainable(self) -> Mapping[str, float] | None:
        return self.data.attainable if self.data else None

    @property
    def truth(self) -> NDArray[np.float64] | None:
        return self.data.truth if self.data else None

    @property
    def best(self) -> Mapping[str, float]:
        """The default metrics, and as `calibrated` the objective's metric after calibration."""
        return {**self.metrics, "calibrated": self.calibration.after[self.aim.metric]}

    @property
    def objective(self) -> Objective:
        """What predictions are calibrated for."""
        return self.calibration.calibrator.objective

    @property
    def aim(self) -> Aim:
        return AIMS[self.objective]

    @property
    def runs(self) -> tuple[FittedModel, ...]:
        """Every run it consists of."""
        return tuple(run for member in self.run.members for run in member)

    @property
    def experiment(self) -> Experiment:
        return self.run.experiment

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per validation; single runs only."""
        return self.run.metrics.get("history", []) if isinstance(self.run, Run) else []

    @property
    def kept(self) -> Mapping[str, float]:
        """The row of the history whose weights were kept."""
        kept: Mapping[str, float] = self.runs[0].metrics["best"]
        return kept

    @property
    def family(self) -> Family:
        return family_of(self.experiment.model)

    @property
    def gain(self) -> Mapping[str, float]:
        """Share of the total split gain by column; of a single run of trees."""
        return self.run.metrics.get("importance", {}) if isinstance(self.run, Run) else {}
