"""What would 10.7 million, 1 billion and 100 billion rows per day need? An extrapolation.

First the rates of this machine on rows in the Toss layout: bytes per row, raw and prepared; rows/s
of `prepare`, of training and of scoring (FESeq_medium, max_len 500, float32, without the optimiser
step); FLOP per row. Then the resources to process one day's rows once within 24 hours, by linear
extrapolation: losses by distribution, which `benchmarks/scale.py` measures on one machine, are not
included.

Two numbers are assumptions, set by options and marked in the table: the sustained FLOP/s of a GPU,
and the rows of an effective batch.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import harness
import torch
import workload
from rawdata import full_dataset

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.training.device import keep_freed_memory

SCALES = (10.7e6, 1e9, 100e9)
DAY = 24 * 3600
CLICKS = 0.019  # click rate; negative_sampling keeps all clicks


def measured(options: argparse.Namespace, root: Path) -> dict[str, float]:
    """Rates per row and per core on this machine."""
    rows, cores = options.rows, torch.get_num_threads()
    synthesize(root, rows, 1, seed=1)
    raw = root / "train.parquet"
    dataset = full_dataset(raw, root)
    started = time.monotonic()
    prepared = prepare(dataset)
    prepare_s = time.monotonic() - started
    store = sum(f.stat().st_size for f in prepared.folder.rglob("*") if f.is_file())
    keep_freed_memory()
    lengths = workload.toss_lengths(options.model_rows, 500, seed=1)
    model = workload.medium(500)
    parts = workload.batch_of(lengths, seed=1).split(8192)
    train_s = min(workload.seconds(lambda: workload.train_step(model, parts), 2))
    predict_s = min(workload.seconds(lambda: workload.predict(model, parts), 2))
    return {
        "raw_bytes": raw.stat().st_size / rows,
        "store_bytes": store / rows,
        "prepare_rows_per_core_s": rows / prepare_s / cores,
        "train_rows_per_core_s": len(lengths) / train_s / cores,
        "predict_rows_per_core_s": len(lengths) / predict_s / cores,
        "train_mflop": 3 * workload.forward_flop(model, lengths) / len(lengths) / 1e6,
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }


def needs(rows: float, m: dict[str, float], gpu_flops: float, batch: int) -> dict[str, str]:
    """The resources for one day's rows, formatted."""
    share = CLICKS + (1 - CLICKS) * 0.1
    cores = {name: rows / DAY / m[f"{name}_rows_per_core_s"] for name in _STEPS}
    gradient = 2 * 4 * m["parameters"]  # a ring all-reduce sends each value about twice
    return {
        "raw files": _bytes(rows * m["raw_bytes"]),
        "store": _bytes(rows * m["store_bytes"]),
        "row order of an epoch, in memory": _bytes(rows * 8),
        "cores to prepare": _count(cores["prepare"]),
        "cores to train": _count(cores["train"]),
        "cores to train, negative_sampling 0.1": _count(cores["train"] * share),
        "cores to score": _count(cores["predict"]),
        "FLOP/s to train": _si(rows / DAY * m["train_mflop"] * 1e6) + "FLOP/s",
        f"GPUs to train, at {_si(gpu_flops)}FLOP/s each (assumed)": _count(
            rows / DAY * m["train_mflop"] * 1e6 / gpu_flops
        ),
        "reads from the store in training": _bytes(rows / DAY * m["store_bytes"]) + "/s",
        "random rows in training": f"{_si(rows / DAY).strip()} rows/s",
        f"optimiser steps, batches of {batch:,} (assumed)": _count(rows / batch),
        "gradients sent per worker at that batch size": _bytes(rows / batch / DAY * gradient)
        + "/s",
    }


_STEPS = ("prepare", "train", "predict")


def _si(value: float) -> str:
    power = min(max(int(math.log10(value) // 3), 0), 6) if value > 0 else 0
    return f"{value / 1000**power:,.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E'][power]}"


def _bytes(value: float) -> str:
    return _si(value) + "B"


def _count(value: float) -> str:
    return f"{value:,.2f}" if value < 1 else f"{math.ceil(value):,}"


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="to prepare")
    parser.add_argument("--model-rows", type=int, default=512, help="to train and score")
    parser.add_argument("--gpu-tflops", type=float, default=20, help="assumed speed of a GPU")
    parser.add_argument("--batch", type=int, default=65_536, help="assumed effective batch")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.model_rows = 5_000, 64
    with tempfile.TemporaryDirectory() as temporary:
        rates = measured(options, Path(temporary))
    columns = [needs(rows, rates, options.gpu_tflops * 1e12, options.batch) for rows in SCALES]
    print("| per day | " + " | ".join(f"{_si(rows)} rows" for rows in SCALES) + " |")
    print("|---|" + "---|" * len(SCALES))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")
    harness.finish(rates, options.json)


if __name__ == "__main__":
    main()
