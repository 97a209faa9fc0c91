"""Blends of several members, fit on their held-out predictions of the same rows.

<folder>/blend.json     members with hashes, the combination and its gain; written last
<folder>/oof.parquet    the cross-fitted blend of each held-out row
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit

from tossctr.calibration.calibrate import FOLDS, SEED, balanced_weights
from tossctr.calibration.cross_validation import (
    Mask,
    cross_fit,
    one_standard_error,
    stratified_folds,
)
from tossctr.calibration.held_out import OUT_OF_FOLD, HeldOut, write_held_out
from tossctr.calibration.maps import MAPS, Floats
from tossctr.calibration.objectives import AIMS, Aim
from tossctr.config.choices import METHODS, Method, Objective
from tossctr.errors import UserError
from tossctr.experiments.combination import fit_combination
from tossctr.experiments.marker import BLEND_MARKER, MAX_MEMBERS, BlendResult
from tossctr.experiments.predictors import Blend
from tossctr.files import locked, sha256_of, write_json
from tossctr.folders import is_made, new_unfinished, put_in_place, refuse_foreign, remove_made
from tossctr.inference.predictor import Predictor
from tossctr.metrics.registry import evaluate, reported
from tossctr.metrics.uncertainty import MeanStd

VERSION = 2


def blend(
    members: Mapping[str, Predictor],
    folder: Path,
    device: torch.device,
    *,
    method: Method | None = None,
    objective: Objective | None = None,
) -> BlendResult:
    """Combine runs, or folds of runs, into a blend.

    Args:
        members: by name.
        folder: where the blend goes; another blend there is renamed to `<folder>.1`.
        device: where to compute missing held-out predictions.
        method: None takes the simplest whose score is at most one standard error of the difference
            below the best.
        objective: None takes that of the members.

    Raises:
        UserError: fewer than two members, different held-out rows, different objectives if none is
            given, a folder that is not a blend or that another process is writing.
    """
    if not 2 <= len({run.marker.resolve() for run in members.values()}) == len(members):
        raise UserError("needs at least two different runs", key="--runs", value=list(members))
    if len(members) > MAX_MEMBERS:
        raise UserError(f"takes at most {MAX_MEMBERS} runs", key="--runs",
                        value=len(members), remedy="leave out the worst")  # fmt: skip
    for name, run in members.items():
        if isinstance(run, Blend):
            raise UserError(f"{name} is a blend", key="--runs", remedy="name its members instead")
    refuse_foreign(folder, "blend")
    held = {name: run.held_out(device) for name, run in members.items()}
    first = _same_rows(held)
    label = first.label.astype(np.float64)
    fold = (
        stratified_folds(label, FOLDS, np.random.default_rng(SEED))
        if first.fold is None
        else first.fold.astype(np.int64)
    )
    _check_folds(fold, label)
    logits = np.stack([h.logit for h in held.values()])
    objective = objective or _objective(members)
    aim = AIMS[objective]
    weight = balanced_weights(label) if aim.balanced else np.ones(len(label))
    crossed = {m: _cross_fitted(m, logits, label, weight, fold) for m in METHODS}
    singles = {
        name: _scores(values, label, weight, fold, aim)
        for name, values in zip(held, logits, strict=True)
    }
    methods = {m: _scores(values, label, weight, fold, aim) for m, values in crossed.items()}
    best = max(singles, key=lambda name: aim.sign * float(singles[name][aim.metric].mean()))
    chosen = method or one_standard_error({m: -aim.sign * methods[m][aim.metric] for m in METHODS})
    result = BlendResult(
        objective=objective,
        combination=fit_combination(chosen, logits, label, weight),
        singles={name: _over_folds(scores) for name, scores in singles.items()},
        methods={name: _over_folds(scores) for name, scores in methods.items()},
        best_single=best,
        gain=_over_folds({k: methods[chosen][k] - singles[best][k] for k in aim.scores}),
    )
    out = HeldOut(
        row=first.row, label=first.label, logit=crossed[chosen], prior=first.prior,
        split=first.split, fold=fold.astype(np.int16), group=first.group,
    )  # fmt: skip
    with locked(folder.with_name(f".{folder.name}.lock"), f"the blend {folder}"):
        work = new_unfinished(folder, "blend")
        write_held_out(work / OUT_OF_FOLD, out)
        write_json(work / BLEND_MARKER, _content(result, members, work, out))
        if is_made(folder, "blend") and _same(work, folder):
            remove_made(work, "blend")
        else:
            put_in_place(work, folder, "blend")
    return result


def _same(one: Path, other: Path) -> bool:
    """Whether two blends have the same members and result."""
    return all(
        (other / name).is_file() and sha256_of(one / name) == sha256_of(other / name)
        for name in (OUT_OF_FOLD, BLEND_MARKER)
    )


def _content(
    result: BlendResult, members: Mapping[str, Predictor], folder: Path, out: HeldOut
) -> dict[str, Any]:
    def described(name: str, run: Predictor) -> dict[str, str]:
        marker = run.marker
        path = os.path.relpath(marker.resolve(), folder.resolve())
        return {"name": name, "marker": path, "sha256": sha256_of(marker)}

    trainings = [run.experiment.training for run in members.values()]
    # If the members have no groups in common, only metrics that need none.
    names = reported(*(t.metrics for t in trainings if out.group is not None))
    return {
        "version": VERSION,
        "members": [described(name, run) for name, run in members.items()],
        "out_of_fold": sha256_of(folder / OUT_OF_FOLD),
        "metrics": evaluate(out.label, out.logit, names, group=out.group),
        **result.model_dump(),
    }


def _objective(members: Mapping[str, Predictor]) -> Objective:
    of = {name: run.objective for name, run in members.items()}
    if len(set(of.values())) > 1:
        raise UserError(
            "runs have different objectives", value=of, remedy="choose one with --objective"
        )
    return next(iter(of.values()))


def _same_rows(held: Mapping[str, HeldOut]) -> HeldOut:
    """The first, if all have the same rows in the same folds."""
    (name, first), *others = held.items()

    def differ(a: HeldOut, b: HeldOut) -> str | None:
        if a.split != b.split:
            return "one is out of fold, the other on the validation split"
        if not (np.array_equal(a.row, b.row) and np.array_equal(a.label, b.label)):
            return "their rows differ"
        if a.fold is not None and not np.array_equal(a.fold, np.asarray(b.fold)):
            return "their folds differ"
        return None

    for other, values in others:
        problem = differ(first, values)
        if problem is not None:
            raise UserError(
                f"{name} and {other} cannot be blended: {problem}",
                key="--runs",
                remedy="train both on the same data, with the same --folds and --fold-method",
            )
    return first


def _check_folds(fold: NDArray[Any], label: Floats) -> None:
    rows, clicks = np.bincount(fold), np.bincount(fold, label)
    for k in _folds(fold):
        if not 0 < clicks[k] < rows[k]:
            raise UserError(
                f"fold {k} of the held-out rows has {rows[k]:,} rows with {clicks[k]:,.0f} clicks: "
                "each fold needs both classes",
                key="--runs",
                remedy="train on more rows",
            )


def _folds(fold: NDArray[np.int64]) -> Sequence[int]:
    return range(int(fold.max()) + 1)


def _cross_fitted(
    method: Method, logits: Floats, label: Floats, weight: Floats, fold: NDArray[np.int64]
) -> Floats:
    """(N,) combined logits, each by a combination that was fit on the other folds."""

    def combined(fit: Mask, held: Mask) -> Floats:
        return fit_combination(method, logits[:, fit], label[fit], weight[fit])(logits[:, held])

    return cross_fit(fold, combined)


def _scores(
    values: Floats, label: Floats, weight: Floats, fold: NDArray[np.int64], aim: Aim
) -> dict[str, Floats]:
    """(folds,) by metric, of logits after cross-fitted calibration by prior shift and Platt."""
    platt = MAPS["platt"]

    def calibrated(fit: Mask, held: Mask) -> Floats:
        shift = float(logit(label[fit].mean())) if aim.balanced else 0.0
        parameters = platt.fit(values[fit] - shift, label[fit], weight[fit])
        return platt.apply(values[held] - shift, parameters)

    mapped = cross_fit(fold, calibrated)
    by_fold = [evaluate(label[fold == k], mapped[fold == k], aim.scores) for k in _folds(fold)]
    return {name: np.array([scores[name] for scores in by_fold]) for name in aim.scores}


def _over_folds(scores: Mapping[str, Floats]) -> dict[str, MeanStd]:
    return {name: MeanStd.of(values.tolist()) for name, values in scores.items()}
