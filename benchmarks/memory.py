"""What does FESeq_medium keep for its backward pass? Independent of device and machine.

    saved_mb_per_row        MB (10**6 bytes) that autograd holds after the forward pass, over the
                            rows: each storage once, parameters and the batch itself left out
    plain_saved_mb_per_row  the same of the plain padded model (plain_feseq.py)
    saved_widths            saved_mb_per_row in vectors of the model's width per event

All histories are `max_len` long, the worst case; on Toss's lengths both would save less but the
plain model, which pads, not.
"""

from __future__ import annotations

import harness
import numpy as np
import torch
import workload
from plain_feseq import PlainFESeq
from torch import Tensor, nn

from tossctr.data.batch import Batch


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


def main() -> None:
    parser = harness.arguments(__doc__ or "")
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
        },
        options.json,
    )


if __name__ == "__main__":
    main()
