"""The scores and weights of folds, and of the members of a blend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tossctr.calibration.held_out import HeldOut
from tossctr.calibration.objectives import AIMS
from tossctr.experiments.marker import (
    BLEND_MARKER,
    BlendMarker,
    FoldsMarker,
    read_blend,
    read_folds,
)
from tossctr.families.registry import family_of
from tossctr.inference.predict import FittedModel
from tossctr.inference.predictor import Predictor
from tossctr.metrics.uncertainty import MeanStd
from tossctr.runs.run import Run

FOLD_METRICS = ("AUC", "AP", "logloss")  # the competition score needs calibration first
LABELS = {"competition_score": "competition score", "logloss": "log loss"}
Value = tuple[float, float]  # a metric and its standard deviation over folds, NaN for one fold


@dataclass(frozen=True)
class Member:
    """A fold, a member of a blend, or a blending method.

    Attributes:
        about: a short description.
        weight: its weight in the prediction; None for a row that is no member of it.
        scores: by metric.
        chosen: whether this row is the prediction that is submitted.
    """

    name: str
    about: str
    weight: float | None
    scores: Mapping[str, Value]
    chosen: bool = False


@dataclass(frozen=True)
class Members:
    """Attributes:
    summary: one sentence.
    metrics: the keys of `scores`.
    gain: improvement of a blend over its best member in its objective's metric (positive: better):
        mean, standard deviation and standard error over folds. None for folds.
    """

    summary: str
    metrics: tuple[str, ...]
    rows: tuple[Member, ...]
    gain: tuple[float, float, float] | None = None
    best_single: str = ""


def members(run: Predictor, held: HeldOut) -> Members:
    """The members of folds or of a blend, from its marker."""
    if run.marker.name == BLEND_MARKER:
        return _blend(run, read_blend(run.marker))
    return _folds(run, read_folds(run.marker), held)


def configs(run: Predictor, name: str) -> dict[str, FittedModel]:
    """One run per distinct config, by name."""
    if isinstance(run, Run):
        return {name: run}
    if run.marker.name != BLEND_MARKER:
        return {name: run.members[0][0]}
    names = [member.name for member in read_blend(run.marker).members]
    return {f"{name}: {member}": runs[0] for member, runs in zip(names, run.members, strict=True)}


def _folds(run: Predictor, about: FoldsMarker, held: HeldOut) -> Members:
    runs = run.members[0]
    unit = family_of(runs[0].experiment.model).epoch_unit
    nan = float("nan")

    def rows() -> Iterator[Member]:
        for i, (name, scores) in enumerate(zip(about.runs, about.by_fold, strict=True)):
            inside = np.asarray(held.fold) == i % about.folds
            best = runs[i].metrics["best"]["epoch"]
            yield Member(
                name,
                f"{inside.sum():,} rows, {held.label[inside].sum():,.0f} clicks, {unit} {best:.0f}",
                1 / len(runs),
                {key: (scores[key], nan) for key in FOLD_METRICS},
            )
        mean = {key: (of.mean, of.std) for key, of in about.cross_validated.items()}
        pooled = {key: (about.metrics[key], nan) for key in FOLD_METRICS}
        yield Member("mean over folds", "", None, mean)
        text = f"{len(held):,} rows, {held.label.sum():,.0f} clicks"
        yield Member("all folds pooled", text, None, pooled, chosen=True)

    auc, seeds = about.cross_validated["AUC"], len(about.seeds)
    times = f" with {seeds} seeds each" if seeds > 1 else ""
    summary = (
        f"{about.folds} folds ({about.method}){times}: AUC {auc.mean:.4f} ± {auc.std:.4f} "
        "(mean and standard deviation over folds)."
    )
    return Members(summary, FOLD_METRICS, tuple(rows()))


def _blend(run: Predictor, about: BlendMarker) -> Members:
    combination, aim = about.combination, AIMS[run.objective]
    gain = about.gain[aim.metric]
    chosen = combination.method

    def scores(of: Mapping[str, MeanStd]) -> dict[str, Value]:
        return {key: (of[key].mean, of[key].std) for key in aim.scores}

    rows = [
        Member(name, described(runs), weight, scores(of))
        for (name, of), runs, weight in zip(
            about.singles.items(), run.members, combination.weights, strict=True
        )
    ]
    rows += [
        Member(f"blend: {name}", "", None, scores(of), chosen=name == chosen)
        for name, of in about.methods.items()
    ]
    summary = (
        f"Blending {len(run.members)} members ({chosen}) changes the {LABELS[aim.metric]} by "
        f"{gain.mean:+.4f} ± {gain.std:.4f} from the best member, {about.best_single} "
        "(mean and standard deviation over folds)."
    )
    return Members(
        summary,
        aim.scores,
        tuple(rows),
        (aim.sign * gain.mean, gain.std, gain.error),
        about.best_single,
    )


def described(runs: tuple[FittedModel, ...]) -> str:
    """A member's model and number of runs."""
    return runs[0].experiment.model + (f", {len(runs)} runs" if len(runs) > 1 else "")
