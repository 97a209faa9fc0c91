"""`tossctr plan`: memory and time of a training before it runs."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace

import torch

from tossctr.config.schema import Experiment
from tossctr.data.batch import Batch
from tossctr.data.prepare import Prepared
from tossctr.errors import UserError
from tossctr.models import build_model
from tossctr.models.base import CTRModel
from tossctr.models.layers.transformer import set_execution
from tossctr.training.micro_batches import PROBE_EVENTS, fit_micro_batches, probe, probe_step
from tossctr.training.optimizer import new_optimizer


@dataclass(frozen=True)
class MemoryPlan:
    """What a training needs, and the micro-batches in which it fits.

    Attributes:
        micro_batch_events: most events of a micro-batch.
        micro_batches: of an average step of `batch_size` rows.
        gradient_checkpointing: whether the backward pass recomputes Transformer blocks.
        events_per_row: mean over the training rows, cut to `max_len`, plus one for the row itself.
        fixed_mb: weights, gradients, optimizer state and all else that does not grow with events.
        activations_mb: saved and temporary tensors of one micro-batch.
        process_mb: resident size of the process before training (0 if `memory` was given).
        peak_mb: the sum of these three.
        rows_per_s: forward, backward and optimizer step, measured on this machine.
        seconds_per_epoch: at that speed.
        fastest_precision: of those that this machine supports, measured.
    """

    micro_batch_events: int
    micro_batches: int
    gradient_checkpointing: bool
    events_per_row: float
    fixed_mb: float
    activations_mb: float
    process_mb: float
    peak_mb: float
    rows_per_s: float
    seconds_per_epoch: float
    fastest_precision: str


def parse_bytes(text: str) -> float:
    """Bytes of a size like `14GB`, `14 GiB` or `14000 MB`.

    Raises:
        UserError: anything else.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError("is not a size", key="--memory", value=text, remedy="write e.g. 14GB")
    number, unit, binary = float(found[1]), found[2].upper(), found[3]
    return number * float(1024 if binary else 1000) ** " KMGT".index(unit or " ")


def plan_memory(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    memory: float | None = None,
) -> MemoryPlan:
    """Measure memory and time of a step on real rows, in the largest micro-batch that fits.

    Arguments and errors are those of `fit_micro_batches`; `data` are the prepared stores.
    """
    config = experiment.training
    features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
    rows = replace(data.train, features=features)
    fit = fit_micro_batches(experiment, rows, device, memory)
    lengths = rows.event_counts()
    batch = probe(rows, lengths, PROBE_EVENTS[1], device)
    model = build_model(experiment.model, features, experiment.hyperparameters).to(device)
    set_execution(model, checkpointing=fit.gradient_checkpointing)
    seconds = {p: _seconds(model, experiment, batch, p) for p in _precisions(device)}
    rows_per_s = len(batch) / seconds[config.precision if config.precision in seconds else "32"]
    return MemoryPlan(
        micro_batch_events=fit.micro_batch_events,
        micro_batches=fit.per_step,
        gradient_checkpointing=fit.gradient_checkpointing,
        events_per_row=float(lengths.mean()),
        fixed_mb=fit.fixed / 1e6,
        activations_mb=fit.activations / 1e6,
        process_mb=fit.process / 1e6,
        peak_mb=(fit.process + fit.fixed + fit.activations) / 1e6,
        rows_per_s=rows_per_s,
        seconds_per_epoch=len(rows) / rows_per_s,
        fastest_precision=min(seconds, key=lambda p: seconds[p]),
    )


def _seconds(model: CTRModel, experiment: Experiment, batch: Batch, precision: str) -> float:
    optimizer = new_optimizer(model, experiment.training)
    best = math.inf
    for _ in range(2):
        start = time.perf_counter()
        probe_step(model, optimizer, batch, precision)
        if batch.numeric.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _precisions(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        return ("32", "bf16") if torch.cuda.is_bf16_supported() else ("32", "16")
    return ("32",)  # bf16 is faster only on the few CPUs that have instructions for it
