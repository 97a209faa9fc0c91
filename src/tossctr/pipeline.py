"""The steps of the road, each one call; the command line and `run` stand on these."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import torch
from scipy.special import logit

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.recipe import Recipe
from tossctr.config.schema import DatasetConfig, Experiment
from tossctr.data import schema
from tossctr.data.encoder import EncodingReport
from tossctr.data.encoding.columns import resolve
from tossctr.data.prepare import open_prepared, prepare
from tossctr.data.preparing.parallel import Spread
from tossctr.data.sources import open_source
from tossctr.data.synthetic import SyntheticFiles, may_hold_synthetic, synthesize
from tossctr.ensemble.blend import blend
from tossctr.ensemble.calibration import calibrate
from tossctr.ensemble.choices import FoldMethod, Objective
from tossctr.ensemble.folds import folds_of, train_folds
from tossctr.ensemble.held_out import calibrator as fit_calibrator
from tossctr.ensemble.held_out import held_out, held_out_file, keep_validation
from tossctr.ensemble.objectives import AIMS
from tossctr.ensemble.opening import load_blend
from tossctr.errors import UserError
from tossctr.evaluation.ceiling import ceiling, read_truth
from tossctr.evaluation.grouped import say_left_out
from tossctr.evaluation.held_out import HeldOut
from tossctr.evaluation.metrics import evaluate, reported
from tossctr.files import locked
from tossctr.folders import remove_made
from tossctr.inference.kept import kept_folder, predict_kept
from tossctr.inference.predict import gather, predict_file, predict_rows
from tossctr.inference.scorer import Scorer, objective_of
from tossctr.inference.submission import check_count, read_sample, write_submission
from tossctr.location import Location, exists, name_of, require_readable, same_place
from tossctr.outputs import check_output, is_stream
from tossctr.progress import say
from tossctr.training.checks import check_model
from tossctr.training.run_folder import Run
from tossctr.training.trainer import train

ROW = "row"  # header of row numbers, where there are no ids


def run_folder(experiment: Experiment) -> Path:
    """Where an experiment's run is kept: `<model_root>/<expid>`."""
    return experiment.training.model_root / experiment.expid


def ensure_raw_files(dataset: DatasetConfig, *, seed: int, train_rows: int, test_rows: int) -> bool:
    """Make synthetic raw files where the data set is one of them and none is there; True if it did.

    That is where the configured files have the names that `synthesize` gives and are in one folder
    that holds nothing, or only what `synthesize` wrote, and none of its four files.

    Raises:
        UserError: a raw file is missing for any other reason.
    """
    paths = (
        dataset.train_data, dataset.valid_data, dataset.test_data, dataset.sample_submission,
    )  # fmt: skip
    missing = [path for path in paths if path is not None and not exists(path)]
    if not missing:
        return False
    first = missing[0]
    if not isinstance(dataset.train_data, Path) or not _may_be_made(dataset):
        raise UserError("is not there", file=first, remedy=_near(first))
    folder = dataset.train_data.parent
    say(f"no raw files in {folder}: making {train_rows:,} + {test_rows:,} synthetic rows")
    synthesize(folder, train_rows, test_rows, seed=seed)
    return True


def _may_be_made(dataset: DatasetConfig) -> bool:
    """Whether synthetic files would be just those of the data set, and replace nothing."""
    assert isinstance(dataset.train_data, Path)
    folder = dataset.train_data.parent
    files = SyntheticFiles.of(folder)
    named = (dataset.test_data or files.test, dataset.sample_submission or files.sample_submission)
    columns = {column.name for column in resolve(dataset)} | {dataset.label_col.name}
    return (
        dataset.train_data == files.train
        and dataset.valid_data is None
        and named == (files.test, files.sample_submission)
        and columns <= {*schema.TRAIN_SCHEMA.names}
        and dataset.id_col in (None, schema.ID)
        and may_hold_synthetic(folder)
    )


def _near(path: Location) -> str:
    """What to do about a file that is not there."""
    if not isinstance(path, Path) or not path.parent.is_dir():
        return "put it there, or correct the path in the data set's config"
    names = [other.name for other in path.parent.iterdir() if not other.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "put it there, or correct its name in the config"


def evaluate_run(
    run: Run | Scorer,
    data: Location | None,
    *,
    device: torch.device,
    objective: Objective = "raw",
) -> dict[str, float]:
    """Metrics of a run on a labelled raw file, or on its data set's validation part; of folds and
    blends without a file, on their out-of-fold predictions.

    Args:
        run: what to evaluate.
        data: None takes the held-out rows. The calibrator was fit on them, so each is calibrated by
            a map that was fit without it.
        device: where to score.
        objective: what predictions are calibrated for before they are measured.

    Raises:
        UserError: the validation part has been prepared anew with another vocabulary; a file
            without rows.
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
    if isinstance(run, Scorer):
        return _evaluated(held_out(run, device), objective, names, training.group_id)
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
    group = None if training.group_id is None else np.asarray(valid.groups(training.group_id))
    assert prepared.train.label is not None
    held = HeldOut(
        row=np.arange(len(valid)),
        label=np.asarray(valid.label),
        logit=predict_rows(run, valid, device=device),
        prior=float(np.asarray(prepared.train.label).mean(dtype=np.float64)),
        group=group,
    )
    return _evaluated(held, objective, names, training.group_id)


def _evaluated(
    held: HeldOut, objective: Objective, names: Sequence[str], group_id: str | None
) -> dict[str, float]:
    """Metrics of held-out rows, calibrated by maps that were fit without them."""
    say_left_out(held.group, group_id)
    metrics = evaluate(held.label, held.logit, names, group=held.group)
    if objective == "raw":
        return metrics
    after = calibrate(held, objective).after  # a rising map leaves the ranking metrics as they are
    return {name: after.get(name, value) for name, value in metrics.items()}


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
    metric = AIMS[result.objective].metric
    gain = result.gain[metric]
    say(
        f"{recipe.name}: {result.combination.method} of {', '.join(members)}, "
        f"{metric} {gain.mean:+.6f} ± {gain.std:.6f} against {result.best_single}"
    )
    scorer = load_blend(folder)
    fit_calibrator(scorer, scorer.objective, device)
    return scorer


def submit(
    run: Run | Scorer,
    *,
    data: Location | None,
    sample: Path | None,
    output: Path,
    device: torch.device,
    dataset: DatasetConfig | None = None,
    fresh: bool = False,
    objective: Objective | None = None,
    spread: Spread | None = None,
    force: bool = False,
) -> tuple[int, EncodingReport]:
    """Score a test file into a submission. Where the data set names no id column, rows are known by
    their number, from 0.

    Rows that an earlier call with the same run, file and output had scored when it was killed are
    not scored again, unless `fresh`. Given `spread`, workers score, to the same submission.

    Args:
        run: what scores.
        data: the test file; None takes the data set's.
        sample: the sample submission; None takes the data set's where the test file is its own.
        output: the CSV to write.
        device: where to score.
        dataset: the user's config of the data set; None takes the run's own, whose paths may be
            somebody else's: no URL in it is opened.
        fresh: score all rows again.
        objective: what probabilities are calibrated for; None takes the run's.
        spread: workers.
        force: replace a file that TossCTR did not write.

    Returns:
        The number of rows, and what was counted in them.

    Raises:
        UserError: as `predict_kept`, `write_submission` and `check_output`; a sample that is none,
            before anything is scored.
    """
    own = run.experiment.dataset
    named = dataset or own
    source = data or named.test_data
    if source is None:
        raise UserError("no test file is named", remedy="give --data, or test_data in the data set")
    if data is None and dataset is None and isinstance(source, str):
        raise UserError(
            "is named by the run's own config, and a URL there is not opened unasked",
            file=source,
            remedy="give it with --data",
        )
    if isinstance(source, Path):
        require_readable(source)
    theirs = named.test_data
    if sample is None and theirs is not None and same_place(source, theirs):
        sample = named.sample_submission
    inputs = [
        source, sample, named.train_data, named.valid_data, named.test_data,
        named.sample_submission,
    ]  # fmt: skip
    target = check_output(output, inputs=[i for i in inputs if i is not None], force=force)
    wanted = None if sample is None else read_sample(sample)
    known = open_source(source, {}, encoded=own.encoded).num_rows
    if wanted is not None and known is not None:
        check_count(wanted, known)
    calibrator = fit_calibrator(run, objective or objective_of(run), device)
    say(calibrator.line())
    header = (own.id_col or ROW, own.label_col.name)
    report = EncodingReport()
    with (
        _kept(target) as folder,
        locked(folder.with_suffix(".lock"), f"the output {output}"),
    ):
        parts = predict_kept(
            run,
            source,
            folder,
            device=device,
            id_col=own.id_col,
            report=report,
            fresh=fresh,
            spread=spread,
        )
        calibrated = (replace(part, logit=calibrator(part.logit)) for part in parts)
        rows = write_submission(calibrated, target, sample=wanted, header=header, force=force)
        remove_made(folder, "scores")
    report.say(name_of(source))
    return rows, report


@contextmanager
def _kept(output: Path) -> Iterator[Path]:
    """Where scores are kept until the output is written; for a device or a pipe, which has no place
    beside it, only as long as this process lives."""
    if not is_stream(output):
        yield kept_folder(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield kept_folder(Path(folder) / "submission")


def against_truth(submission: Path, truth: Path) -> dict[str, dict[str, float]]:
    """A submission on synthetic data against the clicks behind it, and the attainable ceiling."""
    label, probability = read_truth(truth, "test")
    predicted = pyarrow.csv.read_csv(submission).column(1).to_numpy()
    return {
        "submission": evaluate(label, logit(predicted)),
        "ceiling": ceiling(label, probability),
    }
