"""How much of the attainable AUC does FESeq learn? Synthetic data with known click probabilities.

FESeq_toy is trained twice on the same rows, with and without their histories, and scored on a test
file. AUCs are in expectation over its clicks (see expectation.py).

    lift                (AUC - 0.5) / (AUC_true - 0.5)
    gain_from_sequence  AUC minus the AUC without histories
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import harness
import numpy as np
import torch
from expectation import expected_auc

from tossctr.config.schema import Experiment
from tossctr.data.encoder import Encoder
from tossctr.data.prepare import Prepared, prepare
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.data.sources.opening import open_source
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment
from tossctr.inference.predict import predict_rows
from tossctr.metrics.ceiling import lift, read_truth
from tossctr.runs.train import train


def without_history(rows: EncodedRows) -> EncodedRows:
    empty = np.zeros(len(rows) + 1, np.int64)
    return replace(
        rows, sequences={n: RaggedArray(r.values[:0], empty) for n, r in rows.sequences.items()}
    )


def held_out_logits(
    experiment: Experiment, data: Prepared, test: Path, folder: Path, history: bool
) -> np.ndarray:
    """Train, then score the test file batch by batch."""
    if not history:
        data = replace(data, train=without_history(data.train), valid=without_history(data.valid))
    run = train(experiment, data, torch.device("cpu"), folder)
    cpu = torch.device("cpu")
    return np.concatenate(
        [
            predict_rows(run, rows if history else without_history(rows), device=cpu)
            for rows in encoded(data.encoder, test)
        ]
    )


def encoded(encoder: Encoder, path: Path) -> Iterator[EncodedRows]:
    first = 0
    for batch in open_source(path, encoder.columns(labelled=False)).batches(batch_rows=8192):
        rows = encoder.transform(batch, first_row=first, labelled=False)
        first += len(rows)
        yield rows


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--test-rows", type=int, default=100_000)
    parser.add_argument("--set", action="append", default=[], help="override a config key")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows = 20_000, 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder, options.rows, options.test_rows, seed=7)
        overrides = [f"train_data={folder / 'train.parquet'}", f"data_root={folder}"]
        experiment = load_experiment(harness.CONFIGS, "FESeq_toy", overrides + options.set)
        data = prepare(experiment.dataset)
        test = folder / "test.parquet"
        with_history, without = (
            held_out_logits(experiment, data, test, folder / f"run{history}", history)
            for history in (True, False)
        )
        _, probability = read_truth(folder / "truth.parquet", "test")
    attainable = expected_auc(probability, probability)
    auc, auc_without = (expected_auc(x, probability) for x in (with_history, without))
    harness.finish(
        {
            "rows": options.rows,
            "auc_true": attainable,
            "auc": auc,
            "auc_without_history": auc_without,
            "lift": lift(auc, attainable),
            "gain_from_sequence": auc - auc_without,
            "peak_mb": harness.own_peak_mb(),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
