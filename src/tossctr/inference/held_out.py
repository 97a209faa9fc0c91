"""Where a run, the folds of one, or a blend keep their held-out predictions; and their calibrator.

A run alone has its validation part's (training keeps them; of a run without, they are computed from
the prepared data), folds and blends their out-of-fold ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tossctr.calibration.calibrate import (
    RAW,
    Calibrator,
    calibrate,
    fit_calibrator,
    read_calibration,
)
from tossctr.calibration.held_out import (
    OUT_OF_FOLD,
    VALIDATION,
    HeldOut,
    read_held_out,
    write_held_out,
)
from tossctr.config.choices import Objective
from tossctr.data.prepare import Prepared, open_prepared
from tossctr.errors import UserError
from tossctr.files import sha256_of
from tossctr.inference.predict import predict_rows
from tossctr.inference.predictor import Scorer, marker_of
from tossctr.progress import say
from tossctr.runs.run_folder import Run


def held_out_file(run: Run | Scorer) -> Path:
    """Where the predictions are kept."""
    return run.folder / (OUT_OF_FOLD if isinstance(run, Scorer) else VALIDATION)


def keep_validation(run: Run, data: Prepared, device: torch.device) -> HeldOut:
    """Predict a data set's validation part and keep that in the run's folder."""
    valid = replace(data.valid, features=run.features)
    group_id = run.experiment.training.group_id
    held = HeldOut(
        row=np.arange(len(valid)),
        label=np.asarray(valid.labels),
        logit=predict_rows(run, valid, device=device),
        prior=float(np.asarray(data.train.labels).mean(dtype=np.float64)),
        group=None if group_id is None else np.asarray(valid.groups(group_id)),
        run=sha256_of(marker_of(run)),
    )
    with _if_it_may_be_kept():
        write_held_out(run.folder / VALIDATION, held)
    return held


def held_out(run: Run | Scorer, device: torch.device) -> HeldOut:
    """The held-out predictions.

    Raises:
        UserError: a run without, whose prepared data are not there (or are others by now);
            predictions of another run.
    """
    file = held_out_file(run)
    if isinstance(run, Scorer) or os.path.lexists(file):
        return kept_of(run)
    try:
        data = open_prepared(run.experiment.dataset)
    except UserError as error:
        raise UserError(
            "no held-out predictions here, and no prepared data to make them from",
            file=run.folder,
            remedy="prepare its data set again (to predict, --objective raw needs neither)",
        ) from error
    if data.encoder.hash != run.encoder.hash:
        raise UserError(
            "the data were prepared anew since this run was trained",
            file=data.folder,
            remedy="train again (to predict, --objective raw needs no held-out predictions)",
        )
    return keep_validation(run, data, device)


def kept_of(run: Run | Scorer) -> HeldOut:
    """The held-out predictions that were kept; errors as `read_held_out`, or they are of another
    run."""
    file = held_out_file(run)
    held = read_held_out(file)
    if isinstance(run, Run):
        if held.run != sha256_of(marker_of(run)) or held.part != "valid" or held.fold is not None:
            raise UserError(
                "holds predictions of another run",
                file=file,
                remedy="remove it: it is made again from the prepared data",
            )
    elif len(run.members) == 1 and (held.part != "train" or held.fold is None):  # of folds
        raise UserError("holds predictions without folds", file=file, remedy="train again")
    return held


def calibrator(run: Run | Scorer, objective: Objective, device: torch.device) -> Calibrator:
    """The calibrator of a run for an objective, fit on its held-out predictions.

    `calibration_<objective>.json` beside them keeps which map was chosen, which takes long, and
    what it gains. Its parameters are fit again: a file that somebody sent cannot bend scores.
    """
    if objective == "raw":
        return RAW
    held = held_out(run, device)
    file = held_out_file(run)
    source = sha256_of(file) if file.is_file() else None
    path = run.folder / f"calibration_{objective}.json"
    kept = None if source is None else read_calibration(path, source)
    if kept is not None:
        fitted = fit_calibrator(held, objective, kept.calibrator.method)
        if fitted.same_as(kept.calibrator):
            return fitted
        say(f"{path} does not fit the held-out predictions: calibrating again")
    found = calibrate(held, objective)
    with _if_it_may_be_kept():
        found.save(path, source)
    return found.calibrator


@contextmanager
def _if_it_may_be_kept() -> Iterator[None]:
    """A folder that is not ours to write in costs the next call its time, not this one its end."""
    try:
        yield
    except UserError as error:
        say(f"not kept for the next time: {error.line()}")
