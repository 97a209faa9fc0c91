"""Does any of the cost-saving techniques lower quality? FESeq_toy with and without each of them.

All variants are trained on the same synthetic rows with known click probabilities and with the same
seeds; a seed changes weights, batches and dropout, not rows.

    as_it_is        sorted batches in micro-batches of 8,192 events, fused CPU kernels, float32
    plain_batches   batches in the random order of their draw, executed at once
    plain_modules   Transformer and crosses module by module, on padded groups, as on a GPU
    recomputed      gradient_checkpointing: on
    bf16            precision: bf16
    sampled         negative_sampling: 0.1, about as many steps of half as many rows

    <variant>_auc         mean over seeds of the AUC on held-out rows, in expectation over clicks
                          (see expectation.py), with the weights of the best epoch
    <variant>_std         its standard deviation over seeds
    <variant>_difference  mean minus that of as_it_is
    <variant>_steps       optimiser steps of one training
    <variant>_curve       mean validation AUC after each epoch
    noise                 standard deviation of the difference of two such means if only the seeds
                          differ (estimated from as_it_is)
    largest_difference    largest absolute difference of a variant
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

import harness
import numpy as np
import torch
from expectation import expected_auc
from learning import encoded

from tossctr.data.loader import RowsDataset
from tossctr.data.prepare import Prepared, prepare
from tossctr.data.rows import EncodedRows
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment
from tossctr.inference.predict import predict_rows
from tossctr.metrics.ceiling import read_truth
from tossctr.models.layers.interaction import Interaction
from tossctr.models.layers.packed import broadcast
from tossctr.models.layers.transformer import set_execution
from tossctr.runs.train import train
from tossctr.training import fit

CPU = torch.device("cpu")
UNLIMITED = 10**9  # events
BATCH_SIZE = 128  # small, for enough steps in few epochs
SAMPLED_EPOCHS = 4  # times the other variants' epochs: as many steps of half as many rows


@contextmanager
def as_drawn() -> Iterator[None]:
    """Do not sort the rows of a batch by length."""
    with patch.object(RowsDataset, "__getitem__", lambda self, numbers: self.rows.take(numbers)):
        yield


@contextmanager
def module_by_module() -> Iterator[None]:
    """No fused kernels, and default fields are crossed at each event."""

    def at_each_event(self: Interaction, own: Any, shared: Any, events: Any) -> Any:
        return self(torch.cat([own, broadcast(shared, events)], dim=1))

    with (
        patch.object(fit, "set_execution", partial(set_execution, fused=False)),
        patch.object(Interaction, "forward_shared", at_each_event),
    ):
        yield


@dataclass(frozen=True)
class Variant:
    """Changed config keys, and a context that changes code during training."""

    keys: tuple[str, ...] = ()
    code: Callable[[], Any] = nullcontext
    epochs: int = 1  # multiple of the other variants' epochs


VARIANTS = {
    "as_it_is": Variant(),
    "plain_batches": Variant((f"micro_batch_events={UNLIMITED}",), as_drawn),
    "plain_modules": Variant(code=module_by_module),
    "recomputed": Variant(("gradient_checkpointing=on",)),
    "bf16": Variant(("precision=bf16",)),
    "sampled": Variant(
        ("negative_sampling=0.1", f"batch_size={BATCH_SIZE // 2}"), epochs=SAMPLED_EPOCHS
    ),
}


@dataclass(frozen=True)
class Result:
    auc: float
    curve: list[float]
    steps: int


def trained(
    variant: Variant,
    keys: Sequence[str],
    data: Prepared,
    test: Sequence[EncodedRows],
    probability: np.ndarray,
    folder: Path,
) -> Result:
    """Train a variant and score the test rows."""
    experiment = load_experiment(harness.CONFIGS, "FESeq_toy", [*keys, *variant.keys])
    with variant.code():
        run = train(experiment, data, CPU, folder)
    logit = np.concatenate([predict_rows(run, rows, device=CPU) for rows in test])
    history = run.metrics["history"]
    return Result(
        expected_auc(logit, probability),
        [row["AUC"] for row in history],
        int(history[-1]["step"]),
    )


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=24_000)
    parser.add_argument("--test-rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="override a config key")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows, options.epochs, options.seeds = 1_000, 1_000, 1, 2

    figures: dict[str, object] = {"rows": options.rows, "epochs": options.epochs}
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder, options.rows, options.test_rows, seed=7)
        keys = [
            f"train_data={folder / 'train.parquet'}",
            f"data_root={folder}",
            "num_workers=0",
            f"batch_size={BATCH_SIZE}",
            "valid_split.method=stratified",  # so that a small split contains clicks
            *options.set,
        ]
        data = prepare(load_experiment(harness.CONFIGS, "FESeq_toy", keys).dataset)
        test = list(encoded(data.encoder, folder / "test.parquet"))
        _, probability = read_truth(folder / "truth.parquet", "test")
        figures["auc_true"] = expected_auc(probability, probability)
        for name, variant in VARIANTS.items():
            epochs = options.epochs * variant.epochs
            fixed = [*keys, f"epochs={epochs}", f"early_stop_patience={epochs}"]
            results[name] = [
                trained(
                    variant,
                    [*fixed, f"seed={seed}"],
                    data,
                    test,
                    probability,
                    folder / f"{name}_{seed}",
                )
                for seed in range(1, options.seeds + 1)
            ]

    reference = [result.auc for result in results["as_it_is"]]
    for name, of_seeds in results.items():
        aucs = [result.auc for result in of_seeds]
        figures[f"{name}_auc"] = fmean(aucs)
        figures[f"{name}_std"] = stdev(aucs)
        figures[f"{name}_difference"] = fmean(aucs) - fmean(reference)
        figures[f"{name}_steps"] = of_seeds[0].steps
        curves = np.array([result.curve for result in of_seeds])
        figures[f"{name}_curve"] = [round(float(x), 4) for x in curves.mean(axis=0)]
    figures["noise"] = stdev(reference) * math.sqrt(2 / options.seeds)
    figures["largest_difference"] = max(
        abs(fmean([r.auc for r in of_seeds]) - fmean(reference)) for of_seeds in results.values()
    )
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
