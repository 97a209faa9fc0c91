"""Models and rows of the speed and memory benchmarks: FESeq_medium, rows in the Toss layout."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import harness
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.data import schema
from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.data.synthetic.sequences import LAST_ID, draw_events, draw_lengths
from tossctr.families.experiment import load_experiment
from tossctr.models.feseq import FESeq

VOCABULARY = {"gender": 4, "age_group": 10, "inventory_id": 20, "day_of_week": 9, "hour": 26}
N_NUMERIC = 75
MEDIUM_DATA = [
    f"train_data={harness.CONFIGS}",
    f"data_root={harness.CONFIGS}",
]  # never read


def medium(max_len: int, seed: int = 0) -> FESeq:
    """FESeq_medium without dropout, with another `max_len`.

    Embeddings have a large standard deviation, so that every id and position affects the output.
    """
    experiment = load_experiment(harness.CONFIGS, "FESeq_medium", ["net_dropout=0", *MEDIUM_DATA])
    torch.manual_seed(seed)
    model = FESeq(features(max_len), experiment.hyperparameters)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)
    return model


def features(max_len: int) -> FeatureMap:
    """The fields of `tossctr_medium`: 5 categories, 75 numbers, the sequence."""
    return FeatureMap(
        dataset_id="benchmark",
        label=schema.LABEL,
        fields=(
            *(Field(name=n, type="categorical", vocab_size=v) for n, v in VOCABULARY.items()),
            *(Field(name=f"number_{i}", type="numeric") for i in range(N_NUMERIC)),
            Field(name="seq", type="sequence", vocab_size=LAST_ID + 2, max_len=max_len),
        ),
    )


def toss_lengths(rows: int, max_len: int, seed: int) -> np.ndarray:
    """(rows,) history lengths distributed as Toss's, the newest `max_len` events kept."""
    return np.minimum(draw_lengths(np.random.default_rng(seed), rows), max_len)


def arguments(description: str | None, *, rows: int, repeats: int) -> argparse.ArgumentParser:
    """The options of `train.py` and `predict.py`."""
    parser = harness.arguments(description)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--plain-rows", type=int, default=256, help="batch of the plain model")
    parser.add_argument("--max-len", type=int, default=500)
    parser.add_argument("--micro-batch-events", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def batch_of(lengths: np.ndarray, seed: int) -> Batch:
    """Rows with histories of these lengths, in ascending order like the loader's."""
    rng = np.random.default_rng(seed)
    lengths = np.sort(lengths)
    values, offsets = draw_events(rng, lengths)
    rows = len(lengths)
    ids = [rng.integers(1, size, rows) for size in VOCABULARY.values()]
    ragged = Ragged(
        torch.from_numpy(values.astype(np.int64)), torch.from_numpy(offsets), int(lengths.max())
    )
    return Batch(
        categorical=torch.from_numpy(np.stack(ids, 1)),
        numeric=torch.from_numpy(rng.random((rows, N_NUMERIC), np.float32)),
        sequences={"seq": ragged},
        label=torch.from_numpy((rng.random(rows) < 0.02).astype(np.float32)),
    )


def rows_of(batch: Batch, fields: FeatureMap) -> EncodedRows:
    """The same rows in the form of a store."""
    assert batch.label is not None
    return EncodedRows(
        features=fields,
        categorical=batch.categorical.numpy(),
        numeric=batch.numeric.numpy(),
        sequences={
            name: RaggedArray(ragged.values.numpy(), ragged.offsets.numpy())
            for name, ragged in batch.sequences.items()
        },
        label=batch.label.numpy(),
    )


def train_step(model: nn.Module, parts: Sequence[Batch]) -> None:
    """Forward and backward pass of one effective batch; gradients stay in the model."""
    model.zero_grad(set_to_none=True)
    rows = sum(len(part) for part in parts)
    for part in parts:
        assert part.label is not None
        loss = binary_cross_entropy_with_logits(model(part), part.label, reduction="sum")
        (loss / rows).backward()


@torch.inference_mode()
def predict(model: nn.Module, parts: Sequence[Batch]) -> Tensor:
    """(B,) probabilities."""
    return torch.cat([model(part) for part in parts]).sigmoid()


def seconds(step: Callable[[], object], repeats: int) -> list[float]:
    """Wall-clock time of each repeat, after a warm-up."""
    step()
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        took.append(time.perf_counter() - start)
    return took


def matmul_peak(repeats: int = 5, size: int = 2048) -> float:
    """FLOP/s of this machine's fastest float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b, repeats))


def forward_flop(model: FESeq, lengths: np.ndarray) -> float:
    """FLOP of the matrix products of one forward pass over real events, the target included.

    Only necessary operations count: no padding, nothing twice, and the broadcast fields' part of
    the first cross layer once per row. A backward pass costs twice as much.
    """
    c = model.config
    events = lengths.astype(np.float64) + 1
    own, shared = (sum(model.embedding.widths(f)) for f in (c.sequence_field, c.default_field))
    crossed = own + shared
    width = model.transformer.blocks[0].attention.out.in_features
    layers, rows = c.stacked_transformer_layers, len(lengths)
    cross = (c.seq_feature_interaction_layers - 1) * crossed**2 + crossed * own
    head = sum(m.weight.numel() for m in model.dnn.modules() if isinstance(m, nn.Linear))
    linear = events.sum() * (cross + layers * 6 * width**2) + rows * (crossed * shared + head)
    attention = layers * 2 * width * (events**2).sum()  # all pairs, scores and mixing
    return 2 * float(linear + attention)
