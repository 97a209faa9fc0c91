"""Metrics of a run on a labelled raw file, or on its held-out predictions."""

from __future__ import annotations

import torch

from tossctr.calibration.calibrate import calibrate
from tossctr.config.choices import Objective
from tossctr.data.encoder import EncodingReport
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predict import gather
from tossctr.inference.predictor import Predictor
from tossctr.location import Location, name_of
from tossctr.metrics.grouped import warn_of_missing_groups
from tossctr.metrics.registry import evaluate, reported


def evaluate_run(
    run: Predictor,
    data: Location | None,
    *,
    device: torch.device,
    objective: Objective = "raw",
) -> dict[str, float]:
    """Metrics of a run on a labelled raw file, or on its held-out predictions.

    Args:
        run: what to evaluate.
        data: None takes the held-out rows: of a run its validation split, of folds and blends all
            rows out of fold. Calibrators are cross-fitted on them: each row is calibrated by one
            that was fit without it.
        device: where to predict.
        objective: what predictions are calibrated for before metrics are computed.

    Raises:
        UserError: as `Predictor.held_out`; a file without rows.
    """
    training = run.experiment.training
    names = reported(training.metrics, training.monitor)
    if data is not None:
        calibrator = calibrator_of(run, objective, device)
        report = EncodingReport()
        scored = run.logits(data, device=device, labelled=True, report=report)
        label, logit, group = gather(scored, data)
        report.say(name_of(data))
        warn_of_missing_groups(group, training.group_id)
        return evaluate(label, calibrator(logit), names, group=group)
    held = run.held_out(device)
    warn_of_missing_groups(held.group, training.group_id)
    if objective == "raw":
        return evaluate(held.label, held.logit, names, group=held.group)
    return dict(calibrate(held, objective, names).after)
