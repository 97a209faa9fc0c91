"""Preparing, training and evaluating in one call each, for the command line and Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.recipe import Recipe
from tossctr.config.schema import Experiment
from tossctr.data.encoder import EncodingReport
from tossctr.data.prepare import open_prepared, prepare
from tossctr.ensemble.blend import blend
from tossctr.ensemble.calibration import calibrate
from tossctr.ensemble.choices import FoldMethod, Objective
from tossctr.ensemble.folds import folds_of, train_folds
from tossctr.ensemble.held_out import calibrator as fit_calibrator
from tossctr.ensemble.held_out import held_out, held_out_file, keep_validation
from tossctr.ensemble.objectives import AIMS
from tossctr.ensemble.opening import load_blend
from tossctr.evaluation.grouped import say_left_out
from tossctr.evaluation.metrics import evaluate, reported
from tossctr.inference.predict import gather, predict_file
from tossctr.inference.scorer import Scorer
from tossctr.location import Location, name_of
from tossctr.progress import say
from tossctr.training.checks import check_model
from tossctr.training.run_folder import Run
from tossctr.training.trainer import train


def run_folder(experiment: Experiment) -> Path:
    """Where an experiment's run is kept: `<model_root>/<expid>`."""
    return experiment.training.model_root / experiment.expid


def train_experiment(
    experiment: Experiment,
    device: torch.device,
    *,
    fresh: bool = False,
    processes: Processes = ALONE,
) -> Run:
    """Prepare what is needed, train into `run_folder`, and keep the validation part's predictions
    there, with the calibrator for the data set's objective that is fit on them. Of several
    processes, the first one prepares and keeps; the others open what it made."""
    processes.everywhere(lambda: check_model(experiment, processes.world_size))
    dataset = experiment.dataset
    data = processes.first_then(lambda: prepare(dataset), others=lambda: open_prepared(dataset))

    def keep(run: Run) -> None:
        if not held_out_file(run).is_file():
            keep_validation(run, data, device)
        fit_calibrator(run, dataset.objective, device)

    run = train(
        experiment,
        data,
        device,
        run_folder(experiment),
        fresh=fresh,
        keep=keep,
        processes=processes,
    )
    processes.first(lambda: say(f"run kept in {run.folder}"))
    return run


def train_in_folds(
    experiment: Experiment,
    device: torch.device,
    *,
    folds: int,
    method: FoldMethod,
    seeds: Sequence[int],
    fresh: bool = False,
) -> Scorer:
    """Prepare what is needed, and train in folds into `<run_folder>.folds`."""
    check_model(experiment)
    data = prepare(experiment.dataset)
    folder = folds_of(run_folder(experiment))
    scorer = train_folds(
        experiment, data, device, folder, folds=folds, method=method, seeds=seeds, fresh=fresh
    )
    fit_calibrator(scorer, scorer.objective, device)
    return scorer


def train_recipe(recipe: Recipe, device: torch.device, *, fresh: bool = False) -> Scorer:
    """Train a recipe's experiments in folds, and blend them into `<model_root>/<recipe>`.

    Resumes an interrupted call: finished folds are kept, a half-trained one resumes.

    Raises:
        UserError: as `train_in_folds` and `blend`.
    """
    for experiment in recipe.experiments:  # what is wrong with the last is said before the first
        check_model(experiment)
    members: dict[str, Run | Scorer] = {
        experiment.expid: train_in_folds(
            experiment,
            device,
            folds=recipe.folds,
            method=recipe.fold_method,
            seeds=recipe.seeds,
            fresh=fresh,
        )
        for experiment in recipe.experiments
    }
    folder = recipe.experiments[0].training.model_root / recipe.name
    result = blend(members, folder, device)
    metric = AIMS[result.objective].metric
    gain = result.gain[metric]
    say(
        f"{recipe.name}: {result.combination.method} of {', '.join(members)}, "
        f"{metric} {gain.mean:+.6f} ± {gain.std:.6f} against {result.best_single}"
    )
    scorer = load_blend(folder)
    fit_calibrator(scorer, scorer.objective, device)
    return scorer


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
        say_left_out(group, training.group_id)
        return evaluate(label, calibrator(logit), names, group=group)
    held = held_out(run, device)
    say_left_out(held.group, training.group_id)
    metrics = evaluate(held.label, held.logit, names, group=held.group)
    if objective == "raw":
        return metrics
    after = calibrate(held, objective).after  # a rising map leaves the ranking metrics as they are
    return {name: after.get(name, value) for name, value in metrics.items()}
