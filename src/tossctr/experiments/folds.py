"""K-fold training: out-of-fold predictions for every row of the training split.

    <run folder>.folds/made_from.json          config, encoder, rows and fold assignment
    <run folder>.folds/seed_1/fold_0/ ...      a run each
    <run folder>.folds/oof.parquet             row, fold, label, logit (mean over the seeds)
    <run folder>.folds/folds.json              hashes and metrics; written last

Folds of another config or other data are trained in `<run folder>.folds.partial`; when they are
finished, earlier ones are renamed to `<run folder>.folds.1`. Runs of other seeds of the same folds
are added to the folder.

The validation split is in no fold: it is for choosing among blends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.calibration.held_out import OUT_OF_FOLD, HeldOut, write_held_out
from tossctr.config.choices import FoldMethod
from tossctr.config.identity import identity
from tossctr.config.schema import Experiment
from tossctr.data.prepare import Prepared
from tossctr.data.subset import subset
from tossctr.errors import UserError
from tossctr.experiments.fold_assignment import assign_folds
from tossctr.experiments.marker import FOLDS_MARKER, MAX_RUNS, read_folds
from tossctr.experiments.predictors import Folds, load_folds
from tossctr.families.experiment import save_experiment
from tossctr.files import locked, sha256_of, write_json
from tossctr.folders import find_same, new_unfinished, put_in_place, write_made_from
from tossctr.inference.predict import predict_rows
from tossctr.metrics.registry import evaluate, reported
from tossctr.metrics.uncertainty import MeanStd, standard_errors
from tossctr.progress import say
from tossctr.runs.run import Run
from tossctr.runs.train import train

VERSION = 2


def train_folds(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    folder: Path,
    *,
    folds: int,
    method: FoldMethod = "stratified",
    seeds: Sequence[int],
    fresh: bool = False,
) -> Folds:
    """Train a model for each seed and fold, and save its predictions of the held-out rows.

    Finished runs of an earlier call with the same data, config and folds are reused. Earlier folds
    of another config or other data are renamed when these are finished.

    Args:
        experiment: what to train; its monitor is computed on the held-out fold.
        data: the prepared stores; the folds divide the training split.
        device: where to train.
        folder: where the folds go.
        folds, method: as for `assign_folds`, with the seed `valid_split.seed` of the data set, so
            that all models have the same folds.
        seeds: for weights and batches.
        fresh: train again what is finished.

    Raises:
        UserError: as `train` and `assign_folds`.
        Stopped: a signal requested it.
    """
    if folds * len(seeds) > MAX_RUNS:
        raise UserError(
            f"folds and seeds would make more than {MAX_RUNS:,} runs",
            key="--folds",
            value=folds,
            remedy="use fewer folds or seeds",
        )
    with locked(folder.with_name(f".{folder.name}.lock"), f"the folds {folder}"):
        rows = data.train
        label = np.asarray(rows.labels)
        group_id = experiment.training.group_id
        group = None if group_id is None else np.asarray(rows.groups(group_id))
        fold = assign_folds(
            method, folds, label, group=group, seed=experiment.dataset.valid_split.seed
        )
        made_from = _made_from(experiment, data, fold)
        work, finished = _begin(folder, made_from, seeds, fresh)
        if finished is not None:
            say(f"these folds are finished: {folder} (--fresh trains again)")
            return finished
        logits = []
        for seed in seeds:
            logit = np.empty(len(label))
            for k in range(folds):
                run = _fold(experiment, data, fold, k, seed, device, folder_of(work, seed, k))
                held = np.flatnonzero(fold == k)
                logit[held] = predict_rows(run, subset(rows, held), device=device)
            logits.append(logit)
        held_out = HeldOut(
            row=np.arange(len(label)),
            label=label,
            logit=np.mean(logits, axis=0),
            prior=float(label.mean(dtype=np.float64)),
            split="train",
            fold=fold,
            group=group,
        )
        (work / FOLDS_MARKER).unlink(missing_ok=True)  # of the same folds with other seeds
        write_held_out(work / OUT_OF_FOLD, held_out)
        save_experiment(experiment, work / "experiment.json")
        names = reported(experiment.training.metrics, experiment.training.monitor)
        _finish(work, held_out, logits, method, folds, seeds, names)
        if work != folder:
            put_in_place(work, folder, "folds")
        say(f"folds: {folder}")
        return load_folds(folder)


def folder_of(folder: Path, seed: int, fold: int) -> Path:
    """The run folder of a seed and fold."""
    return folder / f"seed_{seed}" / f"fold_{fold}"


def _made_from(experiment: Experiment, data: Prepared, fold: NDArray[np.int16]) -> dict[str, Any]:
    config = identity(experiment)
    config["training"].pop("seed")
    made_from: dict[str, Any] = json.loads(
        json.dumps(
            {
                "version": VERSION,
                "experiment": config,
                "encoder": data.encoder.hash,
                "train": sha256_of(data.folder / "train" / "manifest.json"),
                "folds": np.bincount(fold).tolist(),
                "cut": _digest(fold),
            }
        )
    )
    return made_from


def _begin(
    folder: Path, made_from: dict[str, Any], seeds: Sequence[int], fresh: bool
) -> tuple[Path, Folds | None]:
    """The folder to train in, and the folds if they are finished."""
    same = find_same(folder, "folds", made_from, fresh=fresh)
    if same is not None:
        return same, _finished(folder, seeds) if same == folder else None
    work = new_unfinished(folder, "folds")
    write_made_from(work, made_from)
    return work, None


def _finished(folder: Path, seeds: Sequence[int]) -> Folds | None:
    try:
        same_seeds = read_folds(folder / FOLDS_MARKER).seeds == tuple(seeds)
        return load_folds(folder) if same_seeds else None
    except UserError:
        return None  # unfinished, or changed since


def _digest(fold: NDArray[np.int16]) -> str:
    return hashlib.sha256(fold.astype("<i2").tobytes()).hexdigest()


def _fold(
    experiment: Experiment,
    data: Prepared,
    fold: NDArray[np.int16],
    k: int,
    seed: int,
    device: torch.device,
    folder: Path,
) -> Run:
    """Train one fold, or load its finished run."""
    say(f"seed {seed}, fold {k} of {int(fold.max()) + 1}")
    training = experiment.training.model_copy(update={"seed": seed})
    split = Prepared(
        folder=data.folder,
        encoder=data.encoder,
        train=subset(data.train, np.flatnonzero(fold != k)),
        valid=subset(data.train, np.flatnonzero(fold == k)),
        report=data.report,
    )
    return train(experiment.model_copy(update={"training": training}), split, device, folder)


def _finish(
    folder: Path,
    held: HeldOut,
    logits: Sequence[NDArray[np.float64]],
    method: FoldMethod,
    folds: int,
    seeds: Sequence[int],
    metrics: Sequence[str],
) -> None:
    def metrics_of(logit: NDArray[np.float64], rows: NDArray[np.intp]) -> dict[str, float]:
        group = None if held.group is None else held.group[rows]
        return evaluate(held.label[rows], logit[rows], metrics, group=group)

    of_fold = [np.flatnonzero(held.fold == k) for k in range(folds)]
    by_fold = [metrics_of(logit, rows) for logit in logits for rows in of_fold]
    runs = [f"seed_{seed}/fold_{k}" for seed in seeds for k in range(folds)]
    write_json(
        folder / FOLDS_MARKER,
        {
            "version": VERSION,
            "method": method,
            "folds": folds,
            "seeds": list(seeds),
            "runs": {name: sha256_of(folder / name / "run.json") for name in runs},
            "out_of_fold": sha256_of(folder / OUT_OF_FOLD),
            "metrics": metrics_of(held.logit, np.arange(len(held))),
            "by_fold": by_fold,
            "cross_validated": {
                name: asdict(MeanStd.of([m[name] for m in by_fold])) for name in metrics
            },
            "standard_error": standard_errors(held.label, held.logit),
        },
    )
