"""The held-out rows that a report is computed from: evenly spaced and bounded in number."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.calibration.held_out import HeldOut
from tossctr.data.rows import EncodedRows
from tossctr.inference.predict import BATCH_ROWS, predict_rows
from tossctr.progress import track
from tossctr.runs.run import Run

Array = NDArray[Any]

MAX_ROWS = 200_000
MAX_EVENTS = 20_000_000  # bounds the time to score them


@dataclass(frozen=True)
class Scored:
    """n of N held-out rows.

    Attributes:
        row: (n,) row numbers in the store, ascending.
        label: (n,) 0 or 1.
        logit: (n,) float64.
        total: N.
        rows_per_s: speed of scoring; None if the predictions were stored by training.
        split: the store that `row` refers to: `valid`, or `train` for out-of-fold rows.
    """

    row: NDArray[np.int64]
    label: NDArray[np.float64]
    logit: NDArray[np.float64]
    total: int
    rows_per_s: float | None = None
    split: str = "valid"


def subset(rows: EncodedRows, numbers: Array) -> EncodedRows:
    """The rows with these numbers, in memory."""
    return replace(
        rows,
        categorical=np.array(rows.categorical[numbers]),
        numeric=np.array(rows.numeric[numbers]),
        sequences={name: array.take(numbers) for name, array in rows.sequences.items()},
        times=np.array(rows.times[numbers]),
        time_sequences={name: array.take(numbers) for name, array in rows.time_sequences.items()},
        meta=np.array(rows.meta[numbers]),
        label=None if rows.label is None else np.array(rows.label[numbers]),
    )


def evenly(count: int, total: int) -> NDArray[np.int64]:
    """At most `count` evenly spaced row numbers below `total`."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def from_kept(held: HeldOut) -> Scored:
    """An evenly spaced sample of stored predictions."""
    numbers = evenly(MAX_ROWS, len(held))
    return Scored(
        held.row[numbers],
        np.asarray(held.label[numbers], np.float64),
        held.logit[numbers],
        len(held),
        split=held.split,
    )


def score(run: Run, valid: EncodedRows, device: torch.device) -> Scored:
    """Evenly spaced validation rows, with the logits that training stored or else computed in
    batches of `BATCH_ROWS`.

    Args:
        run: the trained run.
        valid: (N,) the validation rows, with the run's features.
        device: where to compute.
    """
    if os.path.lexists(run.held_out_file):
        held = run.kept_held_out()
        if np.array_equal(held.label, valid.labels):
            return from_kept(held)
    mean_events = float(valid.event_counts().mean())
    numbers = evenly(min(MAX_ROWS, max(int(MAX_EVENTS / mean_events), 1_000)), len(valid))
    logit = np.empty(len(numbers))
    started = time.monotonic()
    with track("score validation", len(numbers)) as advance:
        for start in range(0, len(numbers), BATCH_ROWS):
            batch = subset(valid, numbers[start : start + BATCH_ROWS])
            logit[start : start + len(batch)] = predict_rows(run, batch, device=device)
            advance(len(batch))
    seconds = max(time.monotonic() - started, 1e-9)
    label = np.asarray(valid.labels[numbers], np.float64)
    return Scored(numbers, label, logit, len(valid), len(numbers) / seconds)
