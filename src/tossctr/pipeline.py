"""The steps of the road, each one call; the command line and `run` stand on these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.csv
import torch
from scipy.special import logit

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.recipe import Recipe
from tossctr.config.schema import DatasetConfig, Experiment
from tossctr.data.encoder import EncodingReport
from tossctr.data.prepare import open_prepared, prepare
from tossctr.data.preparing.parallel import Spread
from tossctr.data.synthetic import synthesize
from tossctr.ensemble.blend import blend
from tossctr.ensemble.calibration import RAW, Calibrator
from tossctr.ensemble.choices import FoldMethod
from tossctr.ensemble.folds import train_folds
from tossctr.ensemble.held_out import calibrator as fit_calibrator
from tossctr.ensemble.held_out import held_out, keep_validation
from tossctr.ensemble.opening import load_blend
from tossctr.errors import UserError
from tossctr.evaluation.ceiling import ceiling, read_truth
from tossctr.evaluation.metrics import evaluate, reported
from tossctr.files import locked, remove
from tossctr.inference.kept import kept_folder, predict_kept
from tossctr.inference.predict import gather, predict_file, predict_rows
from tossctr.inference.scorer import Scorer
from tossctr.inference.submission import write_submission
from tossctr.location import Location, exists, name_of
from tossctr.progress import say
from tossctr.training.checks import check_model
from tossctr.training.run_folder import FOLDS, Run
from tossctr.training.trainer import train

ROW = "row"  # header of row numbers, where there are no ids


def run_folder(experiment: Experiment) -> Path:
    """Where an experiment's run is kept: `<model_root>/<expid>`."""
    return experiment.training.model_root / experiment.expid


def ensure_raw_files(dataset: DatasetConfig, *, seed: int, train_rows: int, test_rows: int) -> bool:
    """Make synthetic raw files where the data set has none at all; True if it did.

    Raises:
        UserError: only one of train and test is there: that is an accident, not a fresh start.
    """
    train, test = dataset.train_data, dataset.test_data
    if exists(train):
        if test is not None and not exists(test):
            raise UserError("the test file is not there", file=test, remedy="put it there")
        return False
    if not isinstance(train, Path) or (test is not None and exists(test)):
        raise UserError("the train file is not there", file=train)
    say(f"no raw files in {train.parent}: making {train_rows:,} + {test_rows:,} synthetic rows")
    synthesize(train.parent, train_rows, test_rows, seed=seed)
    return True


def evaluate_run(
    run: Run | Scorer,
    data: Location | None,
    *,
    device: torch.device,
    calibrator: Calibrator = RAW,
) -> dict[str, float]:
    """Metrics of a run on a labelled raw file, or on its data set's validation part; of folds and
    blends without a file, on their out-of-fold predictions. Logits go through `calibrator`.

    Raises:
        UserError: the validation part has been prepared anew with another vocabulary.
    """
    training = run.experiment.training
    names = reported(training.metrics, training.monitor)
    if data is not None:
        report = EncodingReport()
        scored = predict_file(run, data, device=device, labelled=True, report=report)
        label, logit, group = gather(scored)
        report.say(name_of(data))
        return evaluate(label, calibrator(logit), names, group=group)
    if isinstance(run, Scorer):
        held = held_out(run, device)
        return evaluate(held.label, calibrator(held.logit), names, group=held.group)
    # Only opened: the paths in a run from elsewhere are no reason to write there.
    prepared = open_prepared(run.experiment.dataset)
    if prepared.encoder.hash != run.encoder.hash:
        raise UserError(
            "the data were prepared anew since this run was trained",
            file=prepared.folder,
            remedy="train again, or name a labelled file with --data",
        )
    valid = replace(prepared.valid, features=run.features)
    assert valid.label is not None
    group = None if training.group_id is None else valid.groups(training.group_id)
    logit = calibrator(predict_rows(run, valid, device=device))
    return evaluate(valid.label, logit, names, group=group)


def train_experiment(
    experiment: Experiment,
    device: torch.device,
    *,
    fresh: bool = False,
    processes: Processes = ALONE,
) -> Run:
    """Prepare what is needed, train into `run_folder`, and keep the validation part's predictions
    there, with the calibrator to the score that is fit on them. Of several processes, the first one
    prepares and keeps; the others open what it made."""
    processes.everywhere(lambda: check_model(experiment, processes.world_size))
    dataset = experiment.dataset
    data = processes.first_then(lambda: prepare(dataset), others=lambda: open_prepared(dataset))
    run = train(experiment, data, device, run_folder(experiment), fresh=fresh, processes=processes)

    def keep() -> None:
        keep_validation(run, data, device)
        fit_calibrator(run, "competition_score", device)

    processes.first(keep)
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
    """Prepare what is needed, and train in folds into `<run_folder>/folds`."""
    check_model(experiment)
    data = prepare(experiment.dataset)
    folder = run_folder(experiment) / FOLDS
    scorer = train_folds(
        experiment, data, device, folder, folds=folds, method=method, seeds=seeds, fresh=fresh
    )
    fit_calibrator(scorer, "competition_score", device)
    return scorer


def train_recipe(recipe: Recipe, device: torch.device, *, fresh: bool = False) -> Scorer:
    """Train a recipe's experiments in folds, and blend them into `<model_root>/<recipe>`.

    What an earlier call left is taken up: whole folds stay, and a half-trained one goes on.

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
    gain = result.gain["competition_score"]
    say(
        f"{recipe.name}: {result.combination.method} of {', '.join(members)}, "
        f"score {gain.mean:+.6f} ± {gain.std:.6f} over {result.best_single}"
    )
    scorer = load_blend(folder)
    fit_calibrator(scorer, "competition_score", device)
    return scorer


def submit(
    run: Run | Scorer,
    *,
    data: Location | None,
    sample: Path | None,
    output: Path,
    device: torch.device,
    fresh: bool = False,
    calibrator: Calibrator = RAW,
    spread: Spread | None = None,
) -> tuple[int, EncodingReport]:
    """Score a test file into a submission; paths left out come from the run's data set. Where that
    names no id column, rows are known by their number, from 0. Logits go through `calibrator`.

    Rows that an earlier call with the same run, file and output had scored when it was killed are
    not scored again, unless `fresh`. Given `spread`, workers score, to the same submission.
    """
    dataset = run.experiment.dataset
    source = data or dataset.test_data
    if source is None:
        raise UserError("no test file is named", remedy="give --data, or test_data in the data set")
    if sample is None and (data is None or data == dataset.test_data):
        sample = dataset.sample_submission
    id_col = dataset.id_col
    report = EncodingReport()
    folder = kept_folder(output)
    with locked(folder.with_suffix(".lock"), f"the output {output}", keep=False):
        parts = predict_kept(
            run,
            source,
            folder,
            device=device,
            id_col=id_col,
            report=report,
            fresh=fresh,
            spread=spread,
        )
        calibrated = (replace(part, logit=calibrator(part.logit)) for part in parts)
        rows = write_submission(calibrated, output, sample=sample, id_col=id_col or ROW)
        remove(folder)
    report.say(name_of(source))
    return rows, report


def against_truth(submission: Path, truth: Path) -> dict[str, dict[str, float]]:
    """A submission on synthetic data against the clicks behind it, and the attainable ceiling."""
    label, probability = read_truth(truth, "test")
    predicted = pyarrow.csv.read_csv(submission).column(1).to_numpy()
    return {
        "submission": evaluate(label, logit(predicted)),
        "ceiling": ceiling(label, probability),
    }
