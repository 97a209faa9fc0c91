"""All that a report says of one run, as numbers: from its folder, its store and its predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from tossctr.config.schema import DatasetConfig
from tossctr.data.manifest import read_manifest
from tossctr.data.prepare import Prepared, open_prepared
from tossctr.data.preparing.parts import PARTS
from tossctr.ensemble.calibration import Calibration, calibrate
from tossctr.errors import UserError
from tossctr.evaluation.ceiling import ceiling
from tossctr.evaluation.held_out import HeldOut
from tossctr.evaluation.metrics import evaluate
from tossctr.files import sha256_of
from tossctr.progress import say
from tossctr.report.distributions import Distributions, distributions
from tossctr.report.importance import Attention, Importance, attention, importance
from tossctr.report.sample import Scored, score
from tossctr.report.slices import Slice, slices
from tossctr.training.run_folder import Run

TRUTH = "truth.parquet"


@dataclass(frozen=True)
class RunReport:
    """One run.

    Attributes:
        name: its folder's name, or as much of its path as tells it from the others.
        scored: the validation rows that were looked at.
        metrics: on them, of the raw predictions.
        baseline: of the best constant: the prior, or 1/2 where both classes weigh the same.
        attainable: of the true probabilities, and these; None where nobody knows them.
        calibration: what calibrating to the competition's score gives, out of fold.
        train_loss: optimiser steps and the loss of their batches.
        slices: by field.
        importance, importance_rows: of fields, the largest first.
        distributions: train beside test.
        prepare: `prepare.json`.
        store_bytes: of the data set's arrays.
        hashes: SHA-256 of what the run was made from, and of what it is, by file.
    """

    name: str
    run: Run
    scored: Scored
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    attainable: Mapping[str, float] | None
    truth: NDArray[np.float64] | None
    calibration: Calibration
    train_loss: tuple[NDArray[np.float64], NDArray[np.float64]]
    slices: Mapping[str, list[Slice]]
    importance: list[Importance]
    importance_rows: int
    attention: Attention | None
    distributions: Distributions
    prepare: Mapping[str, Any]
    store_bytes: int
    hashes: Mapping[str, str]

    @property
    def history(self) -> list[dict[str, float]]:
        """One row a validation."""
        history: list[dict[str, float]] = self.run.metrics.get("history", [])
        return history

    @property
    def best(self) -> Mapping[str, float]:
        """The metrics in `METRICS` and as `calibrated_score` the score after calibration."""
        return {
            **self.metrics,
            "calibrated_score": self.calibration.after["competition_score"],
        }


def collect(run: Run, name: str, device: torch.device) -> RunReport:
    """Score a bounded number of the run's validation rows and gather what is known of it.

    Raises:
        UserError: its data set is not prepared, or was prepared anew with another vocabulary.
    """
    prepared = open_prepared(run.experiment.dataset)
    if prepared.encoder.hash != run.encoder.hash:
        raise UserError(
            f"the data were prepared anew since the run {name} was trained",
            file=prepared.folder,
            remedy="train again",
        )
    valid = replace(prepared.valid, features=run.features)
    scored = score(run, valid, device)
    if not 0 < scored.label.sum() < len(scored.label):
        raise UserError(
            "all validation rows have the same label: there is nothing to report",
            file=prepared.folder,
            remedy="prepare with a larger valid_split.fraction",
        )
    truth = _truth(run.experiment.dataset, prepared, scored)
    found, rows = importance(run, valid, scored, device)
    return RunReport(
        name=name,
        run=run,
        scored=scored,
        metrics=evaluate(scored.label, scored.logit),
        baseline=_baseline(scored.label),
        attainable=None if truth is None else ceiling(scored.label.astype(np.int64), truth),
        truth=truth,
        calibration=_calibration(prepared, scored),
        train_loss=_train_loss(run.folder / "logs"),
        slices=slices(run, valid, scored),
        importance=found,
        importance_rows=rows,
        attention=attention(run, valid, scored, device),
        distributions=distributions(run, prepared),
        prepare=json.loads((prepared.folder / "prepare.json").read_bytes()),
        store_bytes=sum(
            array.bytes
            for part in PARTS
            for array in read_manifest(prepared.folder / part).arrays.values()
        ),
        hashes=_hashes(run, prepared.folder),
    )


def _baseline(label: NDArray[np.float64]) -> dict[str, float]:
    constant = np.full(len(label), float(logit(label.mean())))
    return {
        **evaluate(label, constant, ["AUC", "logloss", "AP"]),
        **evaluate(label, np.zeros(len(label)), ["WLL", "competition_score"]),
    }


def _calibration(prepared: Prepared, scored: Scored) -> Calibration:
    label = scored.label.astype(np.float32)
    assert prepared.train.label is not None
    prior = float(np.mean(prepared.train.label, dtype=np.float64))
    held = HeldOut(scored.row, label, scored.logit, prior)
    return calibrate(held, "competition_score")


def _truth(
    dataset: DatasetConfig, prepared: Prepared, scored: Scored
) -> NDArray[np.float64] | None:
    """(n,) true probabilities of the scored rows, where they lie beside the data and validation is
    the end of the file, so that it is known which they are."""
    file = dataset.train_data.parent / TRUTH
    if dataset.valid_data is not None or dataset.valid_split.method != "time" or not file.is_file():
        return None
    table = pq.read_table(
        file, columns=["probability", "clicked"], filters=[("split", "=", "train")]
    )
    place = len(prepared.train) + scored.row
    if place[-1] >= len(table):
        return None
    if not np.array_equal(table["clicked"].to_numpy()[place], scored.label):
        say(f"{file} is not of this data set: leaving it out")
        return None
    probability: NDArray[np.float64] = table["probability"].to_numpy()[place].astype(np.float64)
    return probability


def _train_loss(logs: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and losses from the CSV logs; a run that went on has several."""
    found: dict[int, float] = {}
    for file in sorted(logs.glob("csv*/metrics.csv")):
        with file.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                if row.get("train_loss"):
                    found[int(row["step"])] = float(row["train_loss"])
    steps = sorted(found)
    return np.array(steps, np.float64), np.array([found[s] for s in steps], np.float64)


def _hashes(run: Run, prepared: Path) -> dict[str, str]:
    made = json.loads((prepared / "prepare.json").read_bytes())
    found = {part["path"]: part["sha256"] for part in made.get("inputs", {}).values()}
    for part in PARTS:
        manifest = prepared / part / "manifest.json"
        found[f"{prepared.name}/{part}/manifest.json"] = sha256_of(manifest)
    marker = json.loads((run.folder / "run.json").read_bytes())
    own = {f"{run.folder.name}/{name}": value for name, value in marker["sha256"].items()}
    return {**found, **own}


def expected_clicks(report: RunReport) -> float:
    """Clicks that the predictions add up to, over those there were."""
    return float(expit(report.scored.logit).sum() / report.scored.label.sum())
