"""Where a run, the folds of one, or a blend keep their held-out predictions; and their calibrator.

A run alone has its validation part's (training keeps them; of a run without, they are computed from
the prepared data), folds and blends their out-of-fold ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tossctr.data.prepare import Prepared, open_prepared
from tossctr.ensemble.calibration import RAW, VERSION, Calibrator, calibrate
from tossctr.ensemble.choices import Objective
from tossctr.errors import UserError
from tossctr.evaluation.held_out import HeldOut, read_held_out, write_held_out
from tossctr.files import sha256_of
from tossctr.inference.predict import predict_rows
from tossctr.inference.scorer import Scorer
from tossctr.progress import say
from tossctr.training.run_folder import Run

VALIDATION = "validation.parquet"
OUT_OF_FOLD = "oof.parquet"


def held_out_file(run: Run | Scorer) -> Path:
    """Where the predictions are kept."""
    return run.folder / (OUT_OF_FOLD if isinstance(run, Scorer) else VALIDATION)


def keep_validation(run: Run, data: Prepared, device: torch.device) -> HeldOut:
    """Predict a data set's validation part and keep that in the run's folder."""
    valid = replace(data.valid, features=run.features)
    assert valid.label is not None
    assert data.train.label is not None
    group_id = run.experiment.training.group_id
    held = HeldOut(
        row=np.arange(len(valid)),
        label=np.asarray(valid.label),
        logit=predict_rows(run, valid, device=device),
        prior=float(np.asarray(data.train.label).mean(dtype=np.float64)),
        group=None if group_id is None else np.asarray(valid.groups(group_id)),
    )
    with _if_it_may_be_kept():
        write_held_out(run.folder / VALIDATION, held)
    return held


def held_out(run: Run | Scorer, device: torch.device) -> HeldOut:
    """The held-out predictions.

    Raises:
        UserError: a run without, whose prepared data are not there (or are others by now).
    """
    file = held_out_file(run)
    if isinstance(run, Scorer) or file.is_file():
        return read_held_out(file)
    try:
        data = open_prepared(run.experiment.dataset)
    except UserError as error:
        raise UserError(
            "no held-out predictions here to calibrate on, and no prepared data to make them from",
            file=run.folder,
            remedy="give --objective raw, or train again",
        ) from error
    if data.encoder.hash != run.encoder.hash:
        raise UserError(
            "the data were prepared anew since this run was trained",
            file=data.folder,
            remedy="give --objective raw, or train again",
        )
    return keep_validation(run, data, device)


def calibrator(run: Run | Scorer, objective: Objective, device: torch.device) -> Calibrator:
    """The calibrator of a run for an objective, fit on its held-out predictions and kept beside
    them as `calibration_<objective>.json`; one kept earlier for the same predictions is taken.
    """
    if objective == "raw":
        return RAW
    held = held_out(run, device)
    file = held_out_file(run)
    source = sha256_of(file) if file.is_file() else None
    path = run.folder / f"calibration_{objective}.json"
    kept = None if source is None else _kept(path, source)
    if kept is None:
        found = calibrate(held, objective)
        with _if_it_may_be_kept():
            found.save(path, source)
        kept = found.calibrator
    return kept


@contextmanager
def _if_it_may_be_kept() -> Iterator[None]:
    """A folder that is not ours to write in costs the next call its time, not this one its end."""
    try:
        yield
    except UserError as error:
        say(f"not kept for the next time: {error.line()}")


def _kept(path: Path, source: str) -> Calibrator | None:
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION or content["held_out"] != source:
            return None
        return Calibrator.from_dict(content["calibrator"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
