"""Collects a report's numbers from the folder, the prepared data and the predictions of a run, of
folds or of a blend."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.special import logit

from tossctr.artefact import read_artefact, read_bytes
from tossctr.calibration.calibrate import Calibration, calibrate
from tossctr.calibration.held_out import HeldOut
from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import Objective
from tossctr.config.schema import DatasetConfig
from tossctr.data.manifest import read_manifest
from tossctr.data.prepare import Prepared, open_prepared
from tossctr.data.preparing.record import PrepareRecord
from tossctr.data.preparing.splits import SPLITS
from tossctr.errors import UserError
from tossctr.files import sha256_of
from tossctr.inference.predictor import Predictor
from tossctr.location import beside
from tossctr.metrics.ceiling import ceiling
from tossctr.metrics.registry import METRICS, default_metrics, evaluate
from tossctr.metrics.uncertainty import standard_errors
from tossctr.progress import say
from tossctr.report.delong import Z95, auc_interval
from tossctr.report.distributions import distributions
from tossctr.report.importance import attention, importance
from tossctr.report.members import configs, members
from tossctr.report.run_report import DataReport, RunReport
from tossctr.report.sample import Scored, from_kept, score
from tossctr.report.segments import segments
from tossctr.runs.marker import RunMarker
from tossctr.runs.run import Run

TRUTH = "truth.parquet"
_LOG_BYTES = 256 << 20


def collect(
    run: Predictor, name: str, device: torch.device, objective: Objective | None = None
) -> RunReport:
    """Collect the numbers of a run from a bounded sample of its validation rows, or those of folds
    or a blend from their out-of-fold predictions.

    Args:
        run: what to report on.
        name: its name in the report.
        device: where to compute predictions that training did not store.
        objective: what to calibrate for; None takes the run's own objective.

    Raises:
        UserError: a run's data are not prepared, or were prepared again with another vocabulary;
            all rows have the same label.
    """
    objective = objective or run.objective
    if not isinstance(run, Run):
        held = run.held_out(device)
        found = _find_prepared(run, held.split, held.label)
        report = _report(run, name, from_kept(held), held.prior, found, objective)
        return replace(report, members=members(run, held))
    prepared = open_prepared(run.experiment.dataset)
    if prepared.encoder.hash != run.encoder.hash:
        raise UserError(
            f"the data were prepared again after the run {name} was trained",
            file=prepared.folder,
            remedy="train again",
        )
    valid = replace(prepared.valid, features=run.features)
    scored = score(run, valid, device)
    prior = float(np.mean(prepared.train.labels, dtype=np.float64))
    report = _report(run, name, scored, prior, prepared, objective)
    fields, rows = importance(run, valid, scored, device)
    return replace(
        report,
        train_loss=_train_loss(run.folder / "logs"),
        importance=fields,
        importance_rows=rows,
        attention=attention(run, valid, scored, device),
    )


def _report(
    run: Predictor,
    name: str,
    scored: Scored,
    prior: float,
    prepared: Prepared | None,
    objective: Objective,
) -> RunReport:
    """The numbers that runs, folds and blends have in common."""
    label = scored.label
    if not 0 < label.sum() < len(label):
        raise UserError(
            f"all held-out rows of {name} have the same label: metrics are undefined",
            file=run.folder,
            remedy="prepare with a larger valid_split.fraction",
        )
    held = HeldOut(scored.row, label.astype(np.float32), scored.logit, prior)
    calibration = calibrate(held, objective)
    return RunReport(
        name=name,
        run=run,
        configs=configs(run, name),
        scored=scored,
        metrics=evaluate(label, scored.logit),
        half_width=_half_widths(scored, calibration),
        baseline=_baseline(label),
        calibration=calibration,
        hashes=_hashes(run),
        data=None if prepared is None else _data(run, prepared, scored),
    )


def _find_prepared(run: Predictor, split: str, label: NDArray[np.float32]) -> Prepared | None:
    """The prepared data that contain the held-out rows, if they still exist unchanged."""
    first = run.members[0][0]
    try:
        prepared = open_prepared(first.experiment.dataset)
    except UserError as error:
        say(f"the report leaves out segments and drift: {error.line()}")
        return None
    stored = (prepared.valid if split == "valid" else prepared.train).labels
    if prepared.encoder.hash == first.encoder.hash and np.array_equal(stored, label):
        return prepared
    folder = prepared.folder
    say(f"the report leaves out segments and drift: {folder} was prepared again after training")
    return None


def _data(run: Predictor, prepared: Prepared, scored: Scored) -> DataReport:
    first = run.members[0][0]
    rows = prepared.valid if scored.split == "valid" else prepared.train
    truth = _truth(run.experiment.dataset, prepared, scored)
    record = read_artefact(
        prepared.folder / "prepare.json", PrepareRecord, remedy="prepare again"
    ).model_dump(mode="json")
    hashes = {file["path"]: file["sha256"] for file in record["inputs"].values()}
    for split in SPLITS:
        manifest = prepared.folder / split / "manifest.json"
        hashes[f"{prepared.folder.name}/{split}/{manifest.name}"] = sha256_of(manifest)
    return DataReport(
        segments=segments(first, replace(rows, features=first.features), scored),
        distributions=distributions(first, prepared),
        prepare=record,
        bytes=sum(
            array.bytes
            for split in SPLITS
            for array in read_manifest(prepared.folder / split).arrays.values()
        ),
        attainable=None if truth is None else ceiling(scored.label.astype(np.int64), truth),
        truth=truth,
        hashes=hashes,
    )


def _half_widths(scored: Scored, calibration: Calibration) -> dict[str, float]:
    """Half the 95 % interval by metric: a jackknife, of the AUC DeLong's method. The calibrated
    metric uses the map fitted on all rows, which is close to the maps fitted out of fold."""
    raw = standard_errors(scored.label, scored.logit)
    after = standard_errors(scored.label, calibration.calibrator(scored.logit))
    metric = AIMS[calibration.calibrator.objective].metric
    errors = {**raw, "calibrated": after[metric]}
    half = {name: float(Z95) * error for name, error in errors.items()}
    return {**half, "AUC": auc_interval(scored.label, scored.logit)[1]}


def _baseline(label: NDArray[np.float64]) -> dict[str, float]:
    """Default metrics of a constant: the share of clicks, 1/2 for class-balanced metrics."""
    prior = float(logit(label.mean()))

    def constant(name: str) -> NDArray[np.float64]:
        return np.full(len(label), 0.0 if METRICS[name].class_balanced else prior)

    return {name: evaluate(label, constant(name), [name])[name] for name in default_metrics()}


def _truth(
    dataset: DatasetConfig, prepared: Prepared, scored: Scored
) -> NDArray[np.float64] | None:
    """(n,) true probabilities of the scored rows, if the folder of the raw files has them and
    validation rows are the last of the file, so that row numbers are known."""
    file = beside(dataset.train_data, TRUTH)
    if file is None or not file.is_file():
        return None
    if dataset.valid_data is not None or dataset.valid_split.method != "time":
        return None
    table = pq.read_table(
        file, columns=["probability", "clicked"], filters=[("split", "=", "train")]
    )
    position = scored.row + (len(prepared.train) if scored.split == "valid" else 0)
    if position[-1] >= len(table):
        return None
    if not np.array_equal(table["clicked"].to_numpy()[position], scored.label):
        say(f"{file} does not match this data set: ignored")
        return None
    probability: NDArray[np.float64] = table["probability"].to_numpy()[position].astype(np.float64)
    return probability


def _train_loss(logs: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and losses from the CSV logs, of which a resumed run has several."""
    found: dict[int, float] = {}
    for file in sorted(logs.glob("csv*/metrics.csv")):
        try:
            text = read_bytes(file, limit=_LOG_BYTES).decode()
            for row in csv.DictReader(io.StringIO(text, newline="")):
                if row.get("train_loss"):
                    found[int(row["step"])] = float(row["train_loss"])
        except UserError as error:
            say(f"the report leaves out the training loss: {error.line()}")
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            say(f"the report leaves out the training loss: {file} is invalid ({error!s:.80})")
    steps = sorted(step for step, loss in found.items() if 0 <= step < 2**53 and isfinite(loss))
    return np.array(steps, np.float64), np.array([found[s] for s in steps], np.float64)


def _hashes(run: Predictor) -> dict[str, str]:
    """SHA-256 of the files that predictions depend on; of folds and blends, of the markers."""
    if isinstance(run, Run):
        marker = read_artefact(run.marker, RunMarker)
        return {f"{run.folder.name}/{name}": value for name, value in marker.sha256.items()}
    files = [run.marker, *(one.folder / "run.json" for runs in run.members for one in runs)]
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files}
