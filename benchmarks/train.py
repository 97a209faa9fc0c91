"""How fast does FESeq_medium train on histories as long as Toss's? Forward and backward, float32.

    ratio           rows_per_s relative to the plain padded model (plain_feseq.py) with the same
                    weights, whose probabilities and gradients are verified to be equal. It
                    executes `--plain-rows` rows as one batch; a small batch (such as 64) needs less
                    memory for its (B*H, T, T) matrices and is faster on a CPU than a usual one.
    peak_share      FLOP/s of the matrix products on real events (defined in workload.py) relative
                    to this machine's fastest float32 matrix product, measured in the same run
    rows_per_s_bf16 under autocast to bfloat16

Times are the best of interleaved repeats, without the optimiser step.
"""

from __future__ import annotations

import harness
import torch
import workload
from plain_feseq import PlainFESeq
from torch import nn

from tossctr.training.device import keep_freed_memory


def gradient_error(ours: nn.Module, plain: PlainFESeq) -> float:
    """Norm of the difference of the gradients, relative to the plain model's.

    Single entries may differ by more, where rounding moves an activation across its kink.
    """
    by_name = dict(ours.named_parameters())
    pairs = [(by_name[plain.source[n]].grad, p.grad) for n, p in plain.named_parameters()]
    own, theirs = (
        torch.cat([g.flatten() for g in side if g is not None]) for side in zip(*pairs, strict=True)
    )
    return float((own - theirs).norm() / theirs.norm())


def main() -> None:
    options = workload.arguments(__doc__, rows=512, repeats=3).parse_args()
    keep_freed_memory()  # as `train` and `predict` do, for both models
    if options.quick:
        options.rows, options.plain_rows, options.repeats = 128, 32, 2

    lengths = workload.toss_lengths(options.rows, options.max_len, seed=1)
    parts = workload.batch_of(lengths, seed=1).split(options.micro_batch_events)
    model = workload.medium(options.max_len)
    plain = PlainFESeq(model)
    some = workload.batch_of(lengths[: options.plain_rows], seed=2)
    some_parts = some.split(options.micro_batch_events)

    error = (workload.predict(model, some_parts) - workload.predict(plain, [some])).abs().max()
    workload.train_step(plain, [some])
    workload.train_step(model, some_parts)
    gradients = gradient_error(model, plain)

    def bf16_step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            workload.train_step(model, parts)

    took, plain_took, peaks = [], [], []
    for _ in range(options.repeats):
        took += workload.seconds(lambda: workload.train_step(model, parts), 1)
        plain_took += workload.seconds(lambda: workload.train_step(plain, [some]), 1)
        peaks.append(workload.matmul_peak())
    rows_per_s = options.rows / min(took)
    plain_rows_per_s = options.plain_rows / min(plain_took)
    flop_per_s = 3 * workload.forward_flop(model, lengths) / min(took)
    harness.finish(
        {
            "rows": options.rows,
            "events_per_row": float(lengths.mean() + 1),
            "threads": torch.get_num_threads(),
            "rows_per_s": rows_per_s,
            "plain_rows_per_s": plain_rows_per_s,
            "ratio": rows_per_s / plain_rows_per_s,
            "gflop_per_s": flop_per_s / 1e9,
            "peak_gflop_per_s": max(peaks) / 1e9,
            "peak_share": flop_per_s / max(peaks),
            "rows_per_s_bf16": options.rows / min(workload.seconds(bf16_step, 1)),
            "probability_error": float(error),
            "gradient_error": gradients,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
