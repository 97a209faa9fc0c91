"""What folds and blends are made of: each part's own score and its weight."""

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
    OverFolds,
    read_blend,
    read_folds,
)
from tossctr.inference.predictor import Scorer
from tossctr.runs.run_folder import Run

RANKING = ("AUC", "AP", "logloss")  # the score of folds means little before calibration
LABELS = {"competition_score": "competition score", "logloss": "log loss"}
Value = tuple[float, float]  # of a metric, and its standard deviation over folds (NaN: of one fold)


@dataclass(frozen=True)
class Member:
    """A fold, a blend's member, or a way to blend.

    Attributes:
        about: what it is, in a few words.
        weight: in what is submitted; None of what is not a part of it.
        scores: by metric.
        chosen: it is what is submitted.
    """

    name: str
    about: str
    weight: float | None
    scores: Mapping[str, Value]
    chosen: bool = False


@dataclass(frozen=True)
class Members:
    """Attributes:
    said: one sentence on how they combine.
    metrics: what `scores` have.
    gain: of a blend, how much better its objective's metric is than its best member's (below 0:
        worse), over folds: mean, standard deviation and standard error; None of folds.
    """

    said: str
    metrics: tuple[str, ...]
    rows: tuple[Member, ...]
    gain: tuple[float, float, float] | None = None
    best_single: str = ""


def members(run: Scorer, held: HeldOut) -> Members:
    """From the marker of folds or of a blend."""
    if run.marker.name == BLEND_MARKER:
        return _blend(run, read_blend(run.marker))
    return _folds(run, read_folds(run.marker), held)


def parts(run: Run | Scorer, name: str) -> dict[str, Run]:
    """By name a run that stands for each config in it."""
    if isinstance(run, Run):
        return {name: run}
    if run.marker.name != BLEND_MARKER:
        return {name: run.members[0][0]}
    names = [member.name for member in read_blend(run.marker).members]
    return {f"{name}: {member}": runs[0] for member, runs in zip(names, run.members, strict=True)}


def _folds(run: Scorer, about: FoldsMarker, held: HeldOut) -> Members:
    runs = run.members[0]
    nan = float("nan")

    def rows() -> Iterator[Member]:
        for i, (name, scores) in enumerate(zip(about.runs, about.by_fold, strict=True)):
            inside = np.asarray(held.fold) == i % about.folds
            best = runs[i].metrics["best"]["epoch"]
            yield Member(
                name,
                f"{inside.sum():,} rows, {held.label[inside].sum():,.0f} clicks, epoch {best:.0f}",
                1 / len(runs),
                {key: (scores[key], nan) for key in RANKING},
            )
        mean = {key: (of.mean, of.std) for key, of in about.cross_validated.items()}
        whole = {key: (about.metrics[key], nan) for key in RANKING}
        yield Member("mean over folds", "", None, mean)
        text = f"{len(held):,} rows, {held.label.sum():,.0f} clicks"
        yield Member("together", text, None, whole, chosen=True)

    auc, seeds = about.cross_validated["AUC"], len(about.seeds)
    times = f" with {seeds} seeds each" if seeds > 1 else ""
    said = (
        f"{about.folds} folds ({about.method}){times}: the AUC is {auc.mean:.4f} ± "
        f"{auc.std:.4f} from fold to fold."
    )
    return Members(said, RANKING, tuple(rows()))


def _blend(run: Scorer, about: BlendMarker) -> Members:
    combination, aim = about.combination, AIMS[run.objective]
    gain = about.gain[aim.metric]
    chosen = combination.method

    def scores(of: Mapping[str, OverFolds]) -> dict[str, Value]:
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
    said = (
        f"Blended by {chosen}, its {len(run.members)} members have a {LABELS[aim.metric]} "
        f"{gain.mean:+.4f} ± {gain.std:.4f} against the best of them, "
        f"{about.best_single} (mean and standard deviation over folds)."
    )
    return Members(
        said,
        aim.scores,
        tuple(rows),
        (aim.sign * gain.mean, gain.std, gain.error or 0.0),
        about.best_single,
    )


def described(runs: tuple[Run, ...]) -> str:
    """A member by its model and how many runs it is."""
    return runs[0].experiment.model + (f", {len(runs)} runs" if len(runs) > 1 else "")
