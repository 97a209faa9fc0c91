"""How a batch is cut into micro-batches, so that a training step fits into memory.

Memory is measured, not estimated from formulas: training steps on a few real rows are run at two
sizes, and torch's MemTracker adds up their tensors. It sees allocations, not a device's own
bookkeeping, so micro-batches for a GPU can be chosen without one. Saved and temporary tensors grow
linearly with events; the rest (weights, gradients, optimizer state, the final MLP) does not.
"""

from __future__ import annotations

import ctypes
import gc
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.data.loader import RowsDataset
from tossctr.data.rows import EncodedRows
from tossctr.errors import Untrainable
from tossctr.models import build_model
from tossctr.models.base import CTRModel
from tossctr.models.layers.norm import has_batch_norm
from tossctr.models.layers.transformer import set_execution
from tossctr.training.checks import check_size
from tossctr.training.device import default_micro_batch_events
from tossctr.training.optimizer import new_optimizer

PROBE_EVENTS = (2_000, 8_000)
SMALLEST, LARGEST = 2**10, 2**21  # events of a micro-batch
WHOLE_BATCH = 2**31 - 1  # events of a micro-batch that is always the whole batch
CPU_HEAP = 1.9  # resident bytes per byte of activations: glibc's heap keeps freed memory
USABLE = 0.9  # share of the memory to fill: allocators round up and fragment
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class MicroBatches:
    """How a batch is executed.

    Attributes:
        micro_batch_events: most events of a micro-batch; a longer row is one alone.
        gradient_checkpointing: whether the backward pass recomputes Transformer blocks.
        events_per_step: of an average batch of `batch_size` rows.
    """

    micro_batch_events: int
    gradient_checkpointing: bool
    events_per_step: float

    @property
    def per_step(self) -> int:
        """Micro-batches of an average batch."""
        return math.ceil(self.events_per_step / self.micro_batch_events)

    @classmethod
    def from_config(
        cls, config: TrainingConfig, rows: EncodedRows, device: torch.device, *, whole: bool
    ) -> MicroBatches:
        """Without measuring: the configured size, else the device's default, and checkpointing
        only if it is `on`.

        Args:
            config: the experiment's keys.
            rows: its training rows.
            device: where to train.
            whole: never split a batch, because batch normalisation takes its statistics from it.
        """
        default = WHOLE_BATCH if whole else default_micro_batch_events(device)
        return cls(
            config.micro_batch_events or default,
            config.gradient_checkpointing == "on",
            float(rows.event_counts().mean()) * config.batch_size,
        )

    def __str__(self) -> str:
        plural = "" if self.per_step == 1 else "es"
        split = f"{self.per_step} micro-batch{plural} of at most {self.micro_batch_events:,} events"
        return (
            f"about {self.events_per_step:,.0f} events per step, in "
            f"{'one micro-batch' if self.micro_batch_events == WHOLE_BATCH else split}, gradient "
            f"checkpointing {'on' if self.gradient_checkpointing else 'off'}"
        )


@dataclass(frozen=True)
class MeasuredMicroBatches(MicroBatches):
    """Micro-batches that fit, and the bytes they need.

    Attributes:
        fixed: weights, gradients, optimizer state and all else that does not grow with events.
        activations: saved and temporary tensors of one micro-batch.
        process: resident before training (0 if `memory` was given).
    """

    fixed: float
    activations: float
    process: float


def fit_micro_batches(
    experiment: Experiment,
    rows: EncodedRows,
    device: torch.device,
    memory: float | None = None,
) -> MeasuredMicroBatches:
    """Measure a training step, and choose the largest micro-batch that fits.

    A model with batch normalisation takes its statistics from the whole batch, which is not split.
    With `gradient_checkpointing: auto`, blocks are recomputed only if nothing fits otherwise.

    Args:
        experiment: its `micro_batch_events`, if given, is an upper bound.
        rows: its training rows; a few are probed, the lengths of all are read.
        device: where the probe runs.
        memory: bytes to fit into, counted as on a GPU of that size, whichever device the probe
            runs on; None takes the memory that is free on `device` now.

    Raises:
        Untrainable: not even the smallest micro-batch fits.
    """
    config = experiment.training
    lengths = rows.event_counts()
    events_per_step = float(lengths.mean()) * config.batch_size
    smallest = max(SMALLEST, int(lengths.max()))  # a row is never split
    default = LARGEST
    if memory is None and device.type == "cpu":
        default = default_micro_batch_events(device)
    most = config.micro_batch_events or min(default, max(events_per_step, SMALLEST))
    whole = has_batch_norm(check_size(experiment, rows.features))
    if whole:
        smallest = most = max(math.ceil(events_per_step), SMALLEST)
    probes = [probe(rows, lengths, events, device) for events in PROBE_EVENTS]
    choices = {"off": (False,), "on": (True,), "auto": (False, True)}
    for checkpointing in choices[config.gradient_checkpointing]:
        fixed, per_event = _measure(
            experiment,
            rows.features,
            probes,
            checkpointing=checkpointing,
            fused=memory is None,
        )
        process, budget = 0.0, memory
        if budget is None:
            process = _process_bytes(device)
            per_event *= CPU_HEAP if device.type == "cpu" else 1.0
            budget = process + _free_bytes(device)
        left = USABLE * budget - process - fixed
        if left >= per_event * min(smallest, max(events_per_step, SMALLEST)):
            break
    else:
        raise Untrainable(
            f"{smallest:,} events need {smallest * per_event / 1e6:,.0f} MB, and the model leaves "
            f"only {max(left, 0) / 1e6:,.0f} MB",
            key="--memory",
            remedy=f"lower {'batch_size, ' * whole}embedding_dim or max_len, or give more memory",
        )
    fitting = left / per_event
    events = 2 ** math.floor(math.log2(min(fitting, most)))
    if whole or (config.micro_batch_events is not None and fitting >= most):
        events = int(most)
    return MeasuredMicroBatches(
        WHOLE_BATCH if whole else events,
        checkpointing,
        events_per_step,
        fixed=fixed,
        activations=per_event * min(max(events, float(lengths.max())), events_per_step),
        process=process,
    )


def probe_step(
    model: CTRModel, optimizer: torch.optim.Optimizer, batch: Batch, precision: str
) -> None:
    """One optimizer step on one micro-batch."""
    optimizer.zero_grad()
    device = batch.numeric.device.type
    with torch.autocast(device, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        logit = model(batch).float()
    torch.autograd.backward(binary_cross_entropy_with_logits(logit, batch.labels))
    optimizer.step()


def peak_bytes(model: CTRModel, config: TrainingConfig, batch: Batch) -> float:
    """Most bytes of tensors at once in a step: the second, when the optimizer has its state."""
    optimizer = new_optimizer(model, config)
    probe_step(model, optimizer, batch, config.precision)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        probe_step(model, optimizer, batch, config.precision)
    snapshot = tracker.get_tracker_snapshot("peak")
    return float(sum(kinds["Total"] for kinds in snapshot.values()))


def _measure(
    experiment: Experiment,
    features: FeatureMap,
    probes: list[Batch],
    *,
    checkpointing: bool,
    fused: bool,
) -> tuple[float, float]:
    """Bytes of a step: those that do not grow with events, and those of each event."""
    device = probes[0].numeric.device
    model = build_model(experiment.model, features, experiment.hyperparameters).to(device)
    set_execution(model, checkpointing=checkpointing, fused=fused)
    peaks = [peak_bytes(model, experiment.training, batch) for batch in probes]
    sizes = [int(batch.event_counts().sum()) for batch in probes]
    per_event = max((peaks[1] - peaks[0]) / max(sizes[1] - sizes[0], 1), 1.0)
    weights = float(sum(p.numel() * p.element_size() for p in model.parameters()))
    return max(peaks[0] - per_event * sizes[0], weights), per_event


def probe(rows: EncodedRows, lengths: np.ndarray, events: int, device: torch.device) -> Batch:
    """Random rows with about `events` events."""
    order = np.random.default_rng(0).permutation(len(rows))
    count = int(np.searchsorted(lengths[order].cumsum(), events)) + 1
    return RowsDataset(rows)[order[: max(count, 2)]].to(device)


def _process_bytes(device: torch.device) -> float:
    """Resident bytes of the process on a CPU, of torch's allocator on a GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # memory cached by the probe would not count as free
        return float(torch.cuda.memory_allocated(device))
    # Return the probe's freed memory to the system, if the C library is glibc.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * 4096)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
