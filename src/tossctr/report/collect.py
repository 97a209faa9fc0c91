"""Gathers what a report says of a run, of folds or of a blend: from its folder, its store and its
predictions."""

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
from tossctr.data.preparing.parts import PARTS
from tossctr.data.preparing.record import PrepareRecord
from tossctr.errors import UserError
from tossctr.files import sha256_of
from tossctr.inference.held_out import held_out
from tossctr.inference.predictor import Scorer, marker_of, members_of, objective_of
from tossctr.location import beside
from tossctr.metrics.ceiling import ceiling
from tossctr.metrics.registry import METRICS, default_metrics, evaluate
from tossctr.metrics.uncertainty import standard_errors
from tossctr.progress import say
from tossctr.report.distributions import distributions
from tossctr.report.importance import attention, importance
from tossctr.report.members import members, parts
from tossctr.report.run_report import RunReport, Stored
from tossctr.report.sample import Scored, from_kept, score
from tossctr.report.slices import slices
from tossctr.report.uncertainty import Z95, auc_interval
from tossctr.runs.marker import RunMarker
from tossctr.runs.run_folder import Run

TRUTH = "truth.parquet"
_LOG_BYTES = 256 << 20


def collect(
    run: Run | Scorer, name: str, device: torch.device, objective: Objective | None = None
) -> RunReport:
    """Gather what is known of a run and of a bounded number of its validation rows, which are
    scored; of folds and blends, of their out-of-fold predictions.

    Args:
        run: what to report on.
        name: what it is called in the report.
        device: where to score.
        objective: what its calibration is shown for; None takes its own.

    Raises:
        UserError: a run's data set is not prepared, or was prepared anew with another vocabulary;
            all rows have the same label.
    """
    objective = objective or objective_of(run)
    if isinstance(run, Scorer):
        held = held_out(run, device)
        there = _at_hand(run, held.part, held.label)
        report = _report(run, name, from_kept(held), held.prior, there, objective)
        return replace(report, members=members(run, held))
    prepared = open_prepared(run.experiment.dataset)
    if prepared.encoder.hash != run.encoder.hash:
        raise UserError(
            f"the data were prepared anew since the run {name} was trained",
            file=prepared.folder,
            remedy="train again",
        )
    valid = replace(prepared.valid, features=run.features)
    scored = score(run, valid, device)
    prior = float(np.mean(prepared.train.labels, dtype=np.float64))
    report = _report(run, name, scored, prior, prepared, objective)
    found, rows = importance(run, valid, scored, device)
    return replace(
        report,
        train_loss=_train_loss(run.folder / "logs"),
        importance=found,
        importance_rows=rows,
        attention=attention(run, valid, scored, device),
    )


def _report(
    run: Run | Scorer,
    name: str,
    scored: Scored,
    prior: float,
    prepared: Prepared | None,
    objective: Objective,
) -> RunReport:
    """What runs, folds and blends share."""
    label = scored.label
    if not 0 < label.sum() < len(label):
        raise UserError(
            f"all held-out rows of {name} have the same label: there is nothing to report",
            file=run.folder,
            remedy="prepare with a larger valid_split.fraction",
        )
    held = HeldOut(scored.row, label.astype(np.float32), scored.logit, prior)
    calibration = calibrate(held, objective)
    return RunReport(
        name=name,
        run=run,
        parts=parts(run, name),
        scored=scored,
        metrics=evaluate(label, scored.logit),
        half_width=_half_widths(scored, calibration),
        baseline=_baseline(label),
        calibration=calibration,
        hashes=_hashes(run),
        stored=None if prepared is None else _stored(run, prepared, scored),
    )


def _at_hand(run: Scorer, part: str, label: NDArray[np.float32]) -> Prepared | None:
    """The prepared data with the rows that were held out, if they are there as they were."""
    first = run.members[0][0]
    try:
        prepared = open_prepared(first.experiment.dataset)
    except UserError as error:
        say(f"without what the data say: {error.line()}")
        return None
    there = prepared.valid.label if part == "valid" else prepared.train.label
    assert there is not None
    if prepared.encoder.hash == first.encoder.hash and np.array_equal(there, label):
        return prepared
    say(f"without what the data say: {prepared.folder} was prepared anew since training")
    return None


def _stored(run: Run | Scorer, prepared: Prepared, scored: Scored) -> Stored:
    first = members_of(run)[0][0]
    rows = prepared.valid if scored.part == "valid" else prepared.train
    truth = _truth(run.experiment.dataset, prepared, scored)
    return Stored(
        slices=slices(first, replace(rows, features=first.features), scored),
        distributions=distributions(first, prepared),
        prepare=_prepare_record(prepared.folder).model_dump(mode="json"),
        bytes=sum(
            array.bytes
            for part in PARTS
            for array in read_manifest(prepared.folder / part).arrays.values()
        ),
        attainable=None if truth is None else ceiling(scored.label.astype(np.int64), truth),
        truth=truth,
        hashes=_stored_hashes(prepared.folder),
    )


def _half_widths(scored: Scored, calibration: Calibration) -> dict[str, float]:
    """By batch means, of the AUC after DeLong. The map that is fit on all rows stands in for those
    that calibrated each row without it: beside the luck of the rows that is nothing."""
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
    """(n,) true probabilities of the scored rows, where they lie beside the data and validation is
    the end of the file, so that it is known which they are."""
    file = beside(dataset.train_data, TRUTH)
    if file is None or not file.is_file():
        return None
    if dataset.valid_data is not None or dataset.valid_split.method != "time":
        return None
    table = pq.read_table(
        file, columns=["probability", "clicked"], filters=[("split", "=", "train")]
    )
    place = scored.row + (len(prepared.train) if scored.part == "valid" else 0)
    if place[-1] >= len(table):
        return None
    if not np.array_equal(table["clicked"].to_numpy()[place], scored.label):
        say(f"{file} is not of this data set: leaving it out")
        return None
    probability: NDArray[np.float64] = table["probability"].to_numpy()[place].astype(np.float64)
    return probability


def _train_loss(logs: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and losses from the CSV logs; a resumed run has several."""
    found: dict[int, float] = {}
    for file in sorted(logs.glob("csv*/metrics.csv")):
        try:
            text = read_bytes(file, limit=_LOG_BYTES).decode()
            for row in csv.DictReader(io.StringIO(text, newline="")):
                if row.get("train_loss"):
                    found[int(row["step"])] = float(row["train_loss"])
        except UserError as error:
            say(f"without the losses of training: {error.line()}")
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            say(f"without the losses of training: {file} cannot be read ({error!s:.80})")
    steps = sorted(step for step, loss in found.items() if 0 <= step < 2**53 and isfinite(loss))
    return np.array(steps, np.float64), np.array([found[s] for s in steps], np.float64)


def _prepare_record(prepared: Path) -> PrepareRecord:
    return read_artefact(prepared / "prepare.json", PrepareRecord, remedy="prepare again")


def _stored_hashes(prepared: Path) -> dict[str, str]:
    inputs = _prepare_record(prepared).inputs.values()
    found = {str(part["path"]): str(part["sha256"]) for part in inputs}
    for part in PARTS:
        manifest = prepared / part / "manifest.json"
        found[f"{prepared.name}/{part}/manifest.json"] = sha256_of(manifest)
    return found


def _hashes(run: Run | Scorer) -> dict[str, str]:
    """Of a run, all that it scores with; of folds and blends, what they verify each run by."""
    if isinstance(run, Run):
        marker = read_artefact(marker_of(run), RunMarker)
        return {f"{run.folder.name}/{name}": value for name, value in marker.sha256.items()}
    files = [run.marker, *(one.folder / "run.json" for runs in run.members for one in runs)]
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files}
