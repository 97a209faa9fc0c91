"""`plan`: memory and time of a training before it runs, and the parts that fit.

Nothing is guessed from formulas: a training step on a few real rows is counted, tensor by tensor
(torch's MemTracker, which sees allocations and not a device's own book-keeping, so that a plan for
a GPU can be made without one), at two sizes. Saved and temporary tensors grow linearly with events,
the rest (weights, gradients, optimiser state, the head) does not.
"""

from __future__ import annotations

import ctypes
import gc
import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.config.schema import Experiment
from tossctr.data.batch import Batch
from tossctr.data.loader import RowsDataset
from tossctr.data.prepare import Prepared
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.models import build_model
from tossctr.models.base import CTRModel
from tossctr.training.module import new_optimizer

PROBE_EVENTS = (2_000, 8_000)
SMALLEST, LARGEST = 2**10, 2**21  # events of a part
CPU_LARGEST = 2**13  # more only falls out of the cache there
CPU_HEAP = 1.9  # resident bytes a byte of activations: glibc's heap keeps what is freed between
SPARE = 0.9  # of the memory that a plan fills: allocators round up and fragment
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """What one training needs, and in which parts it fits.

    Attributes:
        micro_batch_events: events executed at once.
        micro_batches: parts of an average step of `batch_size` rows.
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
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    try:
        assert found is not None
        number, unit, binary = float(found[1]), found[2].upper(), found[3]
    except (AssertionError, ValueError):
        raise UserError(
            "is no size", column="--memory", value=text, remedy="write e.g. 14GB"
        ) from None
    return number * float(1024 if binary else 1000) ** " KMGT".index(unit or " ")


def plan(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    memory: float | None = None,
) -> Plan:
    """Count a step, and choose the largest part that fits.

    Args:
        experiment: what is to be trained.
        data: its prepared stores: real rows are probed, all lengths are looked at.
        device: where the probe runs.
        memory: bytes to fit into, as if on a device of its own; None takes what is free on
            `device` now.

    Raises:
        UserError: not even the smallest part fits.
    """
    config = experiment.training
    features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
    rows = replace(data.train, features=features)
    lengths = _events(rows)
    model = build_model(experiment.model, features, experiment.hyperparameters).to(device)
    small, large = (_probe(rows, lengths, events, device) for events in PROBE_EVENTS)
    peaks = [_peak_bytes(model, experiment, batch) for batch in (small, large)]
    sizes = [_size(batch) for batch in (small, large)]
    per_event = max((peaks[1] - peaks[0]) / max(sizes[1] - sizes[0], 1), 1.0)
    fixed = max(peaks[0] - per_event * sizes[0], _parameter_bytes(model))
    seconds = {p: _seconds(model, experiment, large, p) for p in _precisions(device)}
    rows_per_s = len(large) / seconds[config.precision if config.precision in seconds else "32"]
    del model, small, large
    process = 0.0
    if memory is None:
        process = _process_bytes(device)
        per_event *= CPU_HEAP if device.type == "cpu" else 1.0
    budget = SPARE * (memory if memory is not None else process + _free_bytes(device))
    step_events = float(lengths.mean()) * config.batch_size
    micro = _largest(budget - process - fixed, per_event, step_events, device)
    activations = per_event * min(micro, step_events)
    return Plan(
        micro_batch_events=micro,
        micro_batches=math.ceil(step_events / micro),
        events_per_row=float(lengths.mean()),
        fixed_mb=fixed / 1e6,
        activations_mb=activations / 1e6,
        process_mb=process / 1e6,
        peak_mb=(process + fixed + activations) / 1e6,
        rows_per_s=rows_per_s,
        seconds_per_epoch=len(rows) / rows_per_s,
        fastest_precision=min(seconds, key=lambda p: seconds[p]),
    )


def _events(rows: EncodedRows) -> np.ndarray:
    """(N,) events of each row, as `Batch.split` counts them."""
    events = np.ones(len(rows), np.int64)
    for name, ragged in rows.sequences.items():
        limit = rows.features[name].max_len
        own = ragged.lengths if limit is None else np.minimum(ragged.lengths, limit)
        events = np.maximum(events, own + 1)
    return events


def _probe(rows: EncodedRows, lengths: np.ndarray, events: int, device: torch.device) -> Batch:
    """Rows drawn at random until they hold about so many events."""
    order = np.random.default_rng(0).permutation(len(rows))
    count = int(np.searchsorted(lengths[order].cumsum(), events)) + 1
    return RowsDataset(rows)[order[: max(count, 2)]].to(device)


def _size(batch: Batch) -> int:
    longest = [ragged.lengths for ragged in batch.sequences.values()]
    if not longest:
        return len(batch)
    return int(torch.stack(longest).amax(0).sum()) + len(batch)


def _step(model: CTRModel, optimizer: torch.optim.Optimizer, batch: Batch, precision: str) -> None:
    optimizer.zero_grad()
    assert batch.label is not None
    kind = batch.numeric.device.type
    with torch.autocast(kind, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        logit = model(batch).float()
    torch.autograd.backward(binary_cross_entropy_with_logits(logit, batch.label))
    optimizer.step()


def _peak_bytes(model: CTRModel, experiment: Experiment, batch: Batch) -> float:
    """Bytes of all tensors at the worst moment of a step, its second one (state exists then)."""
    optimizer = new_optimizer(model, experiment.training)
    precision = experiment.training.precision
    _step(model, optimizer, batch, precision)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        _step(model, optimizer, batch, precision)
    snapshot = tracker.get_tracker_snapshot("peak")
    return float(sum(kinds["Total"] for kinds in snapshot.values()))


def _seconds(model: CTRModel, experiment: Experiment, batch: Batch, precision: str) -> float:
    optimizer = new_optimizer(model, experiment.training)
    best = math.inf
    for _ in range(2):
        start = time.perf_counter()
        _step(model, optimizer, batch, precision)
        if batch.numeric.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _precisions(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        return ("32", "bf16") if torch.cuda.is_bf16_supported() else ("32", "16")
    return ("32",)  # the products of a CPU gain from bf16 only with units that few have


def _largest(budget: float, per_event: float, step_events: float, device: torch.device) -> int:
    limit = CPU_LARGEST if device.type == "cpu" else LARGEST
    most = min(limit, max(step_events, SMALLEST))
    fitting = min(budget / per_event, most)
    if fitting < SMALLEST:
        raise UserError(
            f"{SMALLEST} events need {SMALLEST * per_event / 1e6:,.0f} MB, and only "
            f"{max(budget, 0) / 1e6:,.0f} MB are left beside the model",
            column="--memory",
            remedy="lower embedding_dim or the number of layers, or give more memory",
        )
    return int(2 ** math.floor(math.log2(fitting)))


def _parameter_bytes(model: CTRModel) -> float:
    return float(sum(p.numel() * p.element_size() for p in model.parameters()))


def _process_bytes(device: torch.device) -> float:
    """Resident now: of the process on a CPU, of torch's allocator on a GPU."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    gc.collect()
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
