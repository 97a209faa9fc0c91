"""Calibration for an objective: an exact shift of the prior, then a map fit on held-out rows.

`logloss`: no shift, and predictions change only if a map is better on held-out rows.
`competition_score` = 0.5 AP + 0.5 / (1 + WLL): WLL weighs clicks and non-clicks 50:50, so the best
prediction for it is the click probability among balanced classes (Elkan, IJCAI 2001, theorem 2):
logit p' = logit p - logit(prior). Maps keep the ranking and so AP; hence the best map for WLL is
the best for the score.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from tossctr.artefact import STRICT, Artefact, Sha256, read_artefact, read_json, sealed, unsealed
from tossctr.calibration.cross_validation import (
    Mask,
    cross_fit,
    one_standard_error,
    stratified_folds,
)
from tossctr.calibration.held_out import HeldOut
from tossctr.calibration.maps import MAPS, Floats, MapName, Parameters, cross_entropy
from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import Objective
from tossctr.errors import UserError
from tossctr.files import write_json
from tossctr.metrics.registry import evaluate
from tossctr.metrics.reliability import reliability
from tossctr.metrics.uncertainty import MeanStd
from tossctr.progress import say

VERSION = 2
FOLDS = 5
MIN_CLICKS = 50  # clicks (and non-clicks) needed to fit a map; with fewer only the shift applies
SEED = 2024


@dataclass(frozen=True)
class Calibrator:
    """A strictly increasing map of logits: a shift, then one of `MAPS`.

    Attributes:
        objective: what it was fit for.
        method: a name in `MAPS`.
        shift: subtracted first: the log odds of the prior, or 0.
        parameters: of the map.
    """

    objective: Objective
    method: MapName = "shift"
    shift: float = 0.0
    parameters: Parameters = ()

    __pydantic_config__ = STRICT

    def __call__(self, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) calibrated logits."""
        return MAPS[self.method].apply(logit - self.shift, self.parameters)

    def describe(self) -> str:
        """One line for the user about the probabilities."""
        if self.objective == "raw":
            return "probabilities are the model's own, not calibrated"
        if self.objective == "logloss":
            how = f"calibrated by the map {self.method}"
            if self.method == "shift":
                how = "the model's own: no map is better on held-out rows"
            return f"probabilities are click rates, {how} (objective: logloss)"
        return (
            f"probabilities are calibrated for {self.objective} and are not click rates (the "
            f"prior's log odds {self.shift:.3f} subtracted, map: {self.method}); "
            "--objective logloss gives click rates"
        )

    def same_as(self, other: Calibrator) -> bool:
        """Whether both are equal up to rounding, which differs between machines."""
        return (
            (self.objective, self.method) == (other.objective, other.method)
            and len(self.parameters) == len(other.parameters)
            and np.allclose(
                [self.shift, *self.parameters], [other.shift, *other.parameters], 1e-3, 1e-3
            )
        )


RAW = Calibrator("raw")


class Calibration(Artefact):
    """A calibrator, and how it compares with the others.

    Attributes:
        calibrator: fit on all held-out rows.
        rows, clicks: their counts.
        losses: by method, mean and standard error of the loss over folds of the held-out rows.
        before, after: metrics of the raw and of the calibrated predictions, the latter
            cross-fitted: each row by a map that was fit without it.
        reliability: bins before and after, as JSON.
    """

    calibrator: Calibrator
    rows: int
    clicks: int
    losses: dict[MapName, tuple[float, float]]
    before: dict[str, float]
    after: dict[str, float]
    reliability: dict[str, Any]

    def save(self, path: Path, source: str | None) -> None:
        """Write it as JSON, with the hash of the predictions it was fit on."""
        write_json(path, sealed({"version": VERSION, "held_out": source, **self.model_dump()}))


class CalibrationFile(Calibration):
    """The schema of `Calibration.save`; `held_out` is the hash of the predictions it was fit on,
    `sha256` that of all other keys."""

    version: Literal[2]
    held_out: Sha256 | None
    sha256: Sha256


def read_calibration(path: Path, source: str) -> CalibrationFile | None:
    """Read what `Calibration.save` wrote for the held-out predictions with the hash `source`.

    Returns:
        None if there is none, if it is of other predictions, or (logged) if it has changed.
    """
    if not os.path.lexists(path):
        return None
    try:
        found = read_artefact(path, CalibrationFile)
        if unsealed(read_json(path)) is None:
            raise UserError("has changed since it was written", file=path)
    except UserError as error:
        say(error.line())
        return None
    return found if found.held_out == source else None


def calibrate(
    held: HeldOut, objective: Objective, metrics: Sequence[str] | None = None
) -> Calibration:
    """Select and fit the map for an objective on held-out predictions.

    By stratified cross-validation over the held-out rows: the simplest map whose loss is at most
    one standard error of the difference above the lowest. With fewer than `MIN_CLICKS` clicks or
    non-clicks, the shift alone.

    Args:
        held: the predictions.
        objective: what to calibrate for.
        metrics: names of the metrics to measure before and after; None takes the default ones.
    """
    z, label, weight = _inputs(held, objective)
    clicks = int(label.sum())
    balanced = AIMS[objective].balanced
    method: MapName = "shift"
    losses: dict[MapName, MeanStd] = {}
    out_of_fold = z
    if objective != "raw" and min(clicks, len(label) - clicks) >= MIN_CLICKS:
        fold = stratified_folds(label, FOLDS, np.random.default_rng(SEED))
        mapped = {name: _cross_fitted(name, z, label, weight, fold) for name in MAPS}
        by_fold = {name: _losses(values, label, weight, fold) for name, values in mapped.items()}
        method = one_standard_error(by_fold)
        losses = {name: MeanStd.of(loss.tolist()) for name, loss in by_fold.items()}
        out_of_fold = mapped[method]
    elif objective != "raw":
        instead = "only the prior is shifted" if balanced else "probabilities are not calibrated"
        say(f"{clicks} clicks in {len(label):,} held-out rows are too few to fit a map: {instead}")
    return Calibration(
        calibrator=fit_calibrator(held, objective, method),
        rows=len(label),
        clicks=clicks,
        losses={name: (loss.mean, loss.error) for name, loss in losses.items()},
        before=evaluate(label, held.logit, metrics, group=held.group),
        # One map for all rows keeps the ranking; the cross-fitted maps of several folds may not.
        after=evaluate(label, out_of_fold, metrics, group=held.group, ranked_by=held.logit),
        reliability={
            name: asdict(
                reliability(label, expit(values), balanced=balanced and 0 < clicks < len(label))
            )
            for name, values in (("before", held.logit), ("after", out_of_fold))
        },
    )


def fit_calibrator(held: HeldOut, objective: Objective, method: MapName) -> Calibrator:
    """Fit a map of `MAPS` on all held-out rows, after the shift."""
    parameters = MAPS[method].fit(*_inputs(held, objective))
    return Calibrator(objective, method, _shift(held, objective), parameters)


def _inputs(held: HeldOut, objective: Objective) -> tuple[Floats, Floats, Floats]:
    """(N,) shifted logits, labels and row weights."""
    label = held.label.astype(np.float64)
    balanced = AIMS[objective].balanced
    weight = balanced_weights(label) if balanced else np.ones(len(label))
    return held.logit - _shift(held, objective), label, weight


def _shift(held: HeldOut, objective: Objective) -> float:
    return float(logit(held.prior)) if AIMS[objective].balanced else 0.0


def balanced_weights(label: Floats) -> Floats:
    """(N,) row weights of mean 1, half of their sum on each class; 1 if there is only one class."""
    clicks = label.sum()
    if not 0 < clicks < len(label):
        return np.ones(len(label))
    weight: Floats = np.where(label > 0.5, 0.5 / clicks, 0.5 / (len(label) - clicks)) * len(label)
    return weight


def _cross_fitted(
    name: MapName, z: Floats, label: Floats, weight: Floats, fold: NDArray[np.int64]
) -> Floats:
    """(N,) logits, each mapped by a map that was fit on the other folds."""

    def mapped(fit: Mask, held: Mask) -> Floats:
        return MAPS[name].apply(z[held], MAPS[name].fit(z[fit], label[fit], weight[fit]))

    return cross_fit(fold, mapped)


def _losses(values: Floats, label: Floats, weight: Floats, fold: NDArray[np.int64]) -> Floats:
    """(folds,) weighted cross entropy of logits."""
    return np.bincount(fold, weight * cross_entropy(values, label)) / np.bincount(fold, weight)
