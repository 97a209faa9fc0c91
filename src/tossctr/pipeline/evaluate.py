"""Metrics of a run on a labelled raw file, or on its held-out predictions."""

from __future__ import annotations

import torch

from tossctr.calibration.calibrate import calibrate
from tossctr.config.choices import Objective
from tossctr.data.encoder import EncodingReport
from tossctr.inference.held_out import calibrator as fit_calibrator
from tossctr.inference.held_out import held_out
from tossctr.inference.predict import gather, predict_file
from tossctr.inference.predictor import Scorer
from tossctr.location import Location, name_of
from tossctr.metrics.grouped import warn_of_missing_groups
from tossctr.metrics.registry import evaluate, reported
from tossctr.runs.run_folder import Run


def evaluate_run(
    run: Run | Scorer,
    data: Location | None,
    *,
    device: torch.device,
    objective: Objective = "raw",
) -> dict[str, float]:
    """Metrics of a run on a labelled raw file, or on its held-out predictions.

    Args:
        run: what to evaluate.
        data: None takes the held-out rows: of a run its validation part, of folds and blends all
            rows out of fold. Maps are fit on them, so each row is calibrated by one that was fit
            without it.
        device: where to score.
        objective: what predictions are calibrated for before they are measured.

    Raises:
        UserError: as `held_out`; a file without rows.
    """
    training = run.experiment.training
    names = reported(training.metrics, training.monitor)
    if data is not None:
        calibrator = fit_calibrator(run, objective, device)
        report = EncodingReport()
        scored = predict_file(run, data, device=device, labelled=True, report=report)
        label, logit, group = gather(scored, data)
        report.say(name_of(data))
        warn_of_missing_groups(group, training.group_id)
        return evaluate(label, calibrator(logit), names, group=group)
    held = held_out(run, device)
    warn_of_missing_groups(held.group, training.group_id)
    if objective == "raw":
        return evaluate(held.label, held.logit, names, group=held.group)
    return dict(calibrate(held, objective, names).after)
