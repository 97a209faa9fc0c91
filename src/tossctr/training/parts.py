"""Which parts of a batch a training executes at once, so that they fit into memory.

Nothing is guessed from formulas: a training step on a few real rows is counted, tensor by tensor
(torch's MemTracker, which sees allocations and not a device's own book-keeping, so that parts for
a GPU can be found without one), at two sizes. Saved and temporary tensors grow linearly with
events, the rest (weights, gradients, optimiser state, the head) does not.
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
from tossctr.models.layers.transformer import execute
from tossctr.training.checks import check_size
from tossctr.training.device import part_events
from tossctr.training.module import new_optimizer

PROBE_EVENTS = (2_000, 8_000)
SMALLEST, LARGEST = 2**10, 2**21  # events of a part
WHOLE = 2**31 - 1  # events of a part that is always the whole batch
CPU_HEAP = 1.9  # resident bytes a byte of activations: glibc's heap keeps what is freed between
SPARE = 0.9  # of the memory that is filled: allocators round up and fragment
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class Parts:
    """How a batch is executed.

    Attributes:
        micro_batch_events: events executed at once; a longer single row stands alone.
        gradient_checkpointing: whether Transformer blocks are run again in the backward pass.
        step_events: of an average batch of `batch_size` rows.
        micro_batches: parts of such a batch.
    """

    micro_batch_events: int
    gradient_checkpointing: bool
    step_events: float

    @property
    def micro_batches(self) -> int:
        return math.ceil(self.step_events / self.micro_batch_events)

    @classmethod
    def uncounted(
        cls, config: TrainingConfig, rows: EncodedRows, device: torch.device, *, whole: bool
    ) -> Parts:
        """As the config says; else the device's usual size, without gradient checkpointing. A model
        with batch normalisation is executed on whole batches, from which its statistics are."""
        usual = WHOLE if whole else part_events(device)
        return cls(
            config.micro_batch_events or usual,
            config.gradient_checkpointing == "on",
            float(events_of(rows).mean()) * config.batch_size,
        )

    def __str__(self) -> str:
        parts = f"parts of at most {self.micro_batch_events:,} ({self.micro_batches} a step)"
        return (
            f"about {self.step_events:,.0f} events a step in "
            f"{'one part' if self.micro_batch_events == WHOLE else parts}, gradient checkpointing "
            f"{'on' if self.gradient_checkpointing else 'off'}"
        )


@dataclass(frozen=True)
class CountedParts(Parts):
    """Parts that fit, and what they need, in bytes.

    Attributes:
        fixed: weights, gradients, optimiser state and what else does not grow with events.
        activations: what a part saves and needs besides.
        process: resident before training (0 for a device of its own).
    """

    fixed: float
    activations: float
    process: float


def fitting_parts(
    experiment: Experiment,
    rows: EncodedRows,
    device: torch.device,
    memory: float | None = None,
) -> CountedParts:
    """Count a step, and choose the largest part that fits.

    A model with batch normalisation has one part, the whole batch, from which its statistics are.
    With `gradient_checkpointing: auto` blocks are run again only if no part fits otherwise.

    Args:
        experiment: what is to be trained; its `micro_batch_events`, if given, is not exceeded.
        rows: its training rows; a few are probed, all lengths are looked at.
        device: where the probe runs.
        memory: bytes to fit into, counted as a GPU with so much memory would execute it, on
            whatever device the probe runs; None takes what is free on `device` now.

    Raises:
        Untrainable: not even the smallest part fits.
    """
    config = experiment.training
    lengths = events_of(rows)
    step_events = float(lengths.mean()) * config.batch_size
    smallest = max(SMALLEST, int(lengths.max()))  # a row is never divided
    usual = part_events(device) if memory is None and device.type == "cpu" else LARGEST
    most = config.micro_batch_events or min(usual, max(step_events, SMALLEST))
    whole = has_batch_norm(check_size(experiment, rows.features))
    if whole:
        smallest = most = max(math.ceil(step_events), SMALLEST)
    probes = [probe(rows, lengths, events, device) for events in PROBE_EVENTS]
    ways = {"off": (False,), "on": (True,), "auto": (False, True)}
    for checkpointing in ways[config.gradient_checkpointing]:
        fixed, per_event = _count(
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
        left = SPARE * budget - process - fixed
        if left >= per_event * min(smallest, max(step_events, SMALLEST)):
            break
    else:
        raise Untrainable(
            f"{smallest:,} events need {smallest * per_event / 1e6:,.0f} MB, and only "
            f"{max(left, 0) / 1e6:,.0f} MB are left beside the model",
            key="--memory",
            remedy=f"lower {'batch_size, ' * whole}embedding_dim or max_len, or give more memory",
        )
    fitting = left / per_event
    as_given = config.micro_batch_events is not None and fitting >= most
    micro = int(most if as_given or whole else 2 ** math.floor(math.log2(min(fitting, most))))
    return CountedParts(
        WHOLE if whole else micro,
        checkpointing,
        step_events,
        fixed=fixed,
        activations=per_event * min(max(micro, float(lengths.max())), step_events),
        process=process,
    )


def events_of(rows: EncodedRows) -> np.ndarray:
    """(N,) events of each row, as `Batch.split` counts them."""
    events = np.ones(len(rows), np.int64)
    for name, ragged in rows.sequences.items():
        limit = rows.features[name].max_len
        own = ragged.lengths if limit is None else np.minimum(ragged.lengths, limit)
        events = np.maximum(events, own + 1)
    return events


def probe_step(
    model: CTRModel, optimizer: torch.optim.Optimizer, batch: Batch, precision: str
) -> None:
    """One optimiser step on one part."""
    optimizer.zero_grad()
    assert batch.label is not None
    kind = batch.numeric.device.type
    with torch.autocast(kind, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        logit = model(batch).float()
    torch.autograd.backward(binary_cross_entropy_with_logits(logit, batch.label))
    optimizer.step()


def peak_bytes(model: CTRModel, config: TrainingConfig, batch: Batch) -> float:
    """Bytes of all tensors at the worst moment of a step, its second one (state exists then)."""
    optimizer = new_optimizer(model, config)
    probe_step(model, optimizer, batch, config.precision)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        probe_step(model, optimizer, batch, config.precision)
    snapshot = tracker.get_tracker_snapshot("peak")
    return float(sum(kinds["Total"] for kinds in snapshot.values()))


def _count(
    experiment: Experiment,
    features: FeatureMap,
    probes: list[Batch],
    *,
    checkpointing: bool,
    fused: bool,
) -> tuple[float, float]:
    """Bytes of a step: what does not grow with events, and what each event adds."""
    device = probes[0].numeric.device
    model = build_model(experiment.model, features, experiment.hyperparameters).to(device)
    execute(model, checkpointing=checkpointing, fused=fused)
    peaks = [peak_bytes(model, experiment.training, batch) for batch in probes]
    sizes = [_size(batch) for batch in probes]
    per_event = max((peaks[1] - peaks[0]) / max(sizes[1] - sizes[0], 1), 1.0)
    weights = float(sum(p.numel() * p.element_size() for p in model.parameters()))
    return max(peaks[0] - per_event * sizes[0], weights), per_event


def probe(rows: EncodedRows, lengths: np.ndarray, events: int, device: torch.device) -> Batch:
    """Rows drawn at random until they hold about so many events."""
    order = np.random.default_rng(0).permutation(len(rows))
    count = int(np.searchsorted(lengths[order].cumsum(), events)) + 1
    return RowsDataset(rows)[order[: max(count, 2)]].to(device)


def _size(batch: Batch) -> int:
    longest = [ragged.lengths for ragged in batch.sequences.values()]
    if not longest:
        return len(batch)
    return int(torch.stack(longest).amax(0).sum()) + len(batch)


def _process_bytes(device: torch.device) -> float:
    """Resident now: of the process on a CPU, of torch's allocator on a GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # or what the probe left there would not count as free
        return float(torch.cuda.memory_allocated(device))
    # The probe's own leavings go back to the system, where the C library can do that.
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
