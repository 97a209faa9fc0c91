"""`plan`: memory and time of a training before it runs, and the parts that fit."""

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
from tossctr.models.layers.transformer import execute
from tossctr.training.module import new_optimizer
from tossctr.training.parts import PROBE_EVENTS, events_of, fitting_parts, probe, probe_step


@dataclass(frozen=True)
class Plan:
    """What one training needs, and in which parts it fits.

    Attributes:
        micro_batch_events: events executed at once.
        micro_batches: parts of an average step of `batch_size` rows.
        gradient_checkpointing: whether Transformer blocks are run again in the backward pass.
        events_per_row: mean over the training rows, cut to `max_len`, the target counted.
        fixed_mb: weights, gradients, optimiser state and what else does not grow with events.
        activations_mb: what a part of that size saves and needs besides.
        process_mb: resident size of the process before training (0 for a plan without the device).
        peak_mb: the sum.
        rows_per_s: forward, backward and optimiser step, measured on this machine.
        seconds_per_epoch: at that rate.
        fastest_precision: of those that this machine runs, measured.
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
    """`14GB`, `14 GiB` or `14000 MB` in bytes.

    Raises:
        UserError: anything else.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise UserError("is no size", key="--memory", value=text, remedy="write e.g. 14GB")
    number, unit, binary = float(found[1]), found[2].upper(), found[3]
    return number * float(1024 if binary else 1000) ** " KMGT".index(unit or " ")


def plan(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    memory: float | None = None,
) -> Plan:
    """Count and time a step on real rows, in the largest part that fits.

    Arguments and errors as those of `fitting_parts`; `data` are the prepared stores.
    """
    config = experiment.training
    features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
    rows = replace(data.train, features=features)
    parts = fitting_parts(experiment, rows, device, memory)
    lengths = events_of(rows)
    batch = probe(rows, lengths, PROBE_EVENTS[1], device)
    model = build_model(experiment.model, features, experiment.hyperparameters).to(device)
    execute(model, checkpointing=parts.gradient_checkpointing)
    seconds = {p: _seconds(model, experiment, batch, p) for p in _precisions(device)}
    rows_per_s = len(batch) / seconds[config.precision if config.precision in seconds else "32"]
    return Plan(
        micro_batch_events=parts.micro_batch_events,
        micro_batches=parts.micro_batches,
        gradient_checkpointing=parts.gradient_checkpointing,
        events_per_row=float(lengths.mean()),
        fixed_mb=parts.fixed / 1e6,
        activations_mb=parts.activations / 1e6,
        process_mb=parts.process / 1e6,
        peak_mb=(parts.process + parts.fixed + parts.activations) / 1e6,
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
    return ("32",)  # the products of a CPU gain from bf16 only with units that few have
