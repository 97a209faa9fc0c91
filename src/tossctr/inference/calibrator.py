"""The calibrator of a predictor, fit on its held-out predictions and kept next to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tossctr.calibration.calibrate import (
    RAW,
    Calibrator,
    calibrate,
    fit_calibrator,
    read_calibration,
)
from tossctr.config.choices import Objective
from tossctr.errors import UserError
from tossctr.files import sha256_of
from tossctr.inference.predictor import Predictor
from tossctr.progress import say


def calibrator_of(predictor: Predictor, objective: Objective, device: torch.device) -> Calibrator:
    """The calibrator of a predictor for an objective, fit on its held-out predictions.

    `calibration_<objective>.json` next to them keeps the choice of the map, which takes long. The
    map's parameters are fit again, so that a manipulated file cannot change predictions.
    """
    if objective == "raw":
        return RAW
    held = predictor.held_out(device)
    file = predictor.held_out_file
    source = sha256_of(file) if file.is_file() else None
    path = predictor.folder / f"calibration_{objective}.json"
    kept = None if source is None else read_calibration(path, source)
    if kept is not None:
        fitted = fit_calibrator(held, objective, kept.calibrator.method)
        if fitted.same_as(kept.calibrator):
            return fitted
        say(f"{path} does not fit the held-out predictions: calibrating again")
    found = calibrate(held, objective)
    with if_writable():
        found.save(path, source)
    return found.calibrator


@contextmanager
def if_writable() -> Iterator[None]:
    """In a folder that cannot be written to, the result is not kept, and the next call computes it
    again."""
    try:
        yield
    except UserError as error:
        say(f"not saved: {error.line()}")
