"""Cost and speed-up of training with several processes, and of its other steps (see scale_rows.py).

Training on the same rows with the same batches; rows/s from the run's metrics.json, the best of
interleaved repeats, without start-up and validation:

    train_efficiency     two processes of one thread each (torchrun, gloo) relative to one process
                         of two threads on the same cores
    train_against_one    two processes relative to twice one process of one thread
    train_identical      1 if weights and metrics are those of one process within 1e-4 (SGD without
                         dropout: Adam turns rounding errors into steps)
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import harness
from safetensors.torch import load_file
from scale_rows import prepare_step, score_step

from tossctr.data.synthetic import synthesize
from tossctr.inference.predict import BATCH_ROWS

EXPID = "FESeq_toy"
SETTINGS = {
    "max_len": 100,
    "batch_size": 512,
    "epochs": 1,
    "optimizer": "sgd",
    "net_dropout": 0,
    "num_workers": 0,
    "valid_split.method": "stratified",
    "valid_split.fraction": 0.05,
}
WAYS = {"two": (2, 1), "one_of_two_threads": (1, 2), "one": (1, 1)}  # processes, threads each


def train_step(folder: Path, rows: int, repeats: int = 2) -> dict[str, object]:
    """Figures of training on `rows` rows, in separate processes."""
    raw = synthesize(folder / "raw", rows, 1, seed=5)
    settings = {**SETTINGS, "data_root": folder, "train_data": raw.train}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, (processes, threads) in WAYS.items():
            keys = {**settings, "model_root": folder / way}
            engine = ["--engine", "torchrun", "--workers", f"{processes}"] if processes > 1 else []
            train = [
                "train",
                "--config",
                f"{harness.CONFIGS}",
                "--expid",
                EXPID,
                "--gpu",
                "-1",
                "--quiet",
            ]
            subprocess.run(
                [*harness.TOSSCTR, *train, *engine, *harness.overrides(keys)],
                env={**os.environ, "OMP_NUM_THREADS": f"{threads}"},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            metrics = json.loads((folder / way / EXPID / "metrics.json").read_text())
            rates[way].append(metrics["rows_per_s"])
    best = {way: max(found) for way, found in rates.items()}
    return {
        "train_rows": rows,
        "train_rows_per_s": best["two"],
        "train_efficiency": best["two"] / best["one_of_two_threads"],
        "train_against_one": best["two"] / (2 * best["one"]),
        "train_identical": int(difference(folder / "two", folder / "one") < 1e-4),
    }


def difference(runs: Path, others: Path) -> float:
    """The largest difference of a weight or of a validation metric."""
    weights, expected = (load_file(r / EXPID / "model.safetensors") for r in (runs, others))
    found = [float((weights[name] - expected[name]).abs().max()) for name in expected]
    histories = (json.loads((r / EXPID / "metrics.json").read_text()) for r in (runs, others))
    for row, other in zip(*(each["history"] for each in histories), strict=True):
        found += [abs(row[name] - other[name]) for name in row]
    return max(found)


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--steps", default="train,prepare,score", help="separated by commas")
    options = parser.parse_args()
    quick = options.quick
    steps: dict[str, Callable[[Path], dict[str, object]]] = {
        "train": lambda folder: train_step(folder, 4_000 if quick else 20_000, 1 if quick else 2),
        "prepare": lambda folder: prepare_step(folder, 48_000 if quick else 400_000),
        "score": lambda folder: score_step(folder, (8 if quick else 48) * BATCH_ROWS),
    }
    figures: dict[str, object] = {}
    for name in options.steps.split(","):
        with tempfile.TemporaryDirectory() as folder:
            figures |= steps[name](Path(folder) / name)
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
