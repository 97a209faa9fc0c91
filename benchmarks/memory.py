"""What does FESeq_medium save for its backward pass? Independent of device and machine.

    saved_mb_per_row        MB (10**6 bytes) that autograd holds after the forward pass, per row;
                            each storage counts once, parameters and the batch not at all
    plain_saved_mb_per_row  the same for the plain padded model (plain_feseq.py)
    saved_widths            saved_mb_per_row in vectors of the model's width per event
    full_500_gb             total GPU memory to train FESeq_full at its max_len 500 and batch size
                            2,048, in the micro-batches planned for 14 GB: weights, gradients,
                            optimiser, saved tensors and workspace of the largest micro-batch
                            (extrapolated from a smaller one)
    full_2000_gb            the same for FESeq_full_long at 2,000

All histories have `max_len` events, the worst case. (Micro-batches are planned for the lengths of
Toss, and then assumed to be full of the longest rows.) With Toss's lengths FESeq would save less;
the plain model pads and would not.
"""

from __future__ import annotations

import math

import harness
import numpy as np
import torch
import workload
from plain_feseq import PlainFESeq
from torch import Tensor, nn

from tossctr.data.batch import Batch
from tossctr.families.experiment import load_experiment
from tossctr.models.feseq import FESeq
from tossctr.models.layers.transformer import set_execution
from tossctr.training.micro_batches import fit_micro_batches, peak_bytes

MEMORY = 14e9
FULL_MAX_LEN = 500  # of tossctr_full


def saved_bytes(model: nn.Module, batch: Batch) -> int:
    """Bytes of all storages that one forward pass saves for backward, but for parameters."""
    storages: dict[int, tuple[int, Tensor]] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held, so that no later one can be given its address.
            storages[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logits = model(batch)
    assert logits.requires_grad
    return sum(size for size, _ in storages.values())


def full(expid: str) -> dict[str, float | int | str]:
    """Planned and counted gigabytes of an experiment on a GPU of 14 GB, and its micro-batches."""
    experiment = load_experiment(harness.CONFIGS, expid, workload.MEDIUM_DATA)
    training = experiment.training
    max_len = training.max_len or FULL_MAX_LEN
    fields = workload.features(max_len)
    typical = workload.batch_of(workload.toss_lengths(2048, max_len, seed=1), seed=1)
    fit = fit_micro_batches(
        experiment, workload.rows_of(typical, fields), torch.device("cpu"), MEMORY
    )

    model = FESeq(fields, experiment.hyperparameters)
    set_execution(model, checkpointing=fit.gradient_checkpointing, fused=False)
    fixed = 4 * sum(p.nbytes for p in model.parameters())  # gradients and Adam's two moments
    few = 1 + 2_000 // max_len
    batches = [workload.batch_of(np.full(rows, max_len), seed=1) for rows in (few, 2 * few)]
    saved, peak = (
        (count(batches[1]) - count(batches[0])) / few  # bytes a row
        for count in (
            lambda batch: saved_bytes(model, batch),
            lambda batch: peak_bytes(model, training, batch),
        )
    )
    rows = math.ceil(fit.micro_batch_events / (max_len + 1))
    name = f"full_{max_len}"
    return {
        f"{name}_gb": (fixed + rows * max(saved, peak)) / 1e9,
        f"{name}_planned_gb": (fit.fixed + fit.activations) / 1e9,
        f"{name}_saved_gb": rows * saved / 1e9,
        f"{name}_micro_batches": str(fit),
    }


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--max-len", type=int, default=500)
    options = parser.parse_args()
    if options.quick:
        options.rows = 4
    batch = workload.batch_of(np.full(options.rows, options.max_len), seed=1)
    model = workload.medium(options.max_len).train()
    ours, plain = (saved_bytes(m, batch) / options.rows for m in (model, PlainFESeq(model)))
    width = model.transformer.blocks[0].attention.out.in_features
    harness.finish(
        {
            "rows": options.rows,
            "max_len": options.max_len,
            "saved_mb_per_row": ours / 1e6,
            "plain_saved_mb_per_row": plain / 1e6,
            "ratio": plain / ours,
            "saved_widths": ours / (4 * width * (options.max_len + 1)),
            **full("FESeq_full"),
            **full("FESeq_full_long"),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
