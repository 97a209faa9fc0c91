"""How close is `tossctr plan` to the memory that training uses? A dozen configs on the CPU.

Each config is planned, then trained for three steps; the peak resident memory of these steps is
compared with the plan's `peak_mb`.

    worst_error   largest |planned / measured - 1|
"""

from __future__ import annotations

import gc
import tempfile
from dataclasses import replace
from pathlib import Path

import harness
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.config.schema import Experiment
from tossctr.data.loader import BatchRows, RowsDataset
from tossctr.data.prepare import Prepared, prepare
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment
from tossctr.models import build_model
from tossctr.training.device import keep_freed_memory
from tossctr.training.optimizer import new_optimizer
from tossctr.training.plan import plan_memory

SETTINGS = (
    ("FESeq_toy", []),
    ("FESeq_toy", ["max_len=500", "batch_size=64"]),
    ("FESeq_toy", ["max_len=2000", "batch_size=32", "embedding_dim=16"]),
    ("FESeq_toy", ["embedding_dim=32", "dnn_hidden_units=[512,256]"]),
    ("FESeq_toy", ["seq_pooling_type=target", "max_len=200", "batch_size=256"]),
    ("FESeq_toy", ["interaction_layer_name=none", "stacked_transformer_layers=2"]),
    ("FESeq_toy", ["embedding_dim=16", "max_len=500", "num_heads=4", "batch_size=96",
                   "stacked_transformer_layers=2", "seq_feature_interaction_layers=2"]),
    ("FESeq_toy", ["net_dropout=0", "layer_norm=false"]),
    ("DCNv2_toy", ["batch_size=2048"]),
    ("DIN_toy", []),
    ("BST_toy", []),
    ("DeepFM_toy", []),
)  # fmt: skip


def status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024e-6 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def measured_mb(experiment: Experiment, data: Prepared, events: int) -> float:
    """Peak resident memory of three training steps."""
    keep_freed_memory()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    features = data.encoder.features.with_lengths(experiment.dataset, experiment.training.max_len)
    model = build_model(experiment.model, features, experiment.hyperparameters)
    optimizer = new_optimizer(model, experiment.training)
    rows = RowsDataset(replace(data.train, features=features))
    order = iter(BatchRows(len(rows), experiment.training.batch_size, shuffle=True))
    for _ in range(3):
        optimizer.zero_grad()
        for part in rows[next(order)].split(events):
            binary_cross_entropy_with_logits(model(part), part.label, reduction="sum").backward()
        optimizer.step()
    return status_mb("VmHWM")


def main() -> None:
    options = harness.arguments(__doc__).parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder, 7_000, 100, seed=5)
        for expid, settings in SETTINGS[:: 3 if options.quick else 1]:
            where = [f"train_data={folder / 'train.parquet'}", f"data_root={folder}"]
            experiment = load_experiment(harness.CONFIGS, expid, where + settings)
            data = prepare(experiment.dataset)
            planned = plan_memory(experiment, data, torch.device("cpu"))
            measured = measured_mb(experiment, data, planned.micro_batch_events)
            error = planned.peak_mb / measured - 1
            worst = max(worst, abs(error))
            title = " ".join([expid, *settings])
            sizes = f"{planned.peak_mb:6.0f} MB planned, {measured:6.0f} measured"
            print(f"{sizes}, {error:+.1%}  {title}")
    harness.finish({"worst_error": worst}, options.json)


if __name__ == "__main__":
    main()
