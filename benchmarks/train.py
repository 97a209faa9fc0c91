"""How fast does FESeq_medium train on histories as long as Toss's? Forward and backward, float32.

    ratio           rows_per_s over those of the plain padded model (plain_feseq.py) with the same
                    weights, whose probabilities and gradients are checked to be the same. The
                    plain one takes `--plain-rows` of them as one batch, as it is written to; fewer
                    (64, say) suit its (B*H, T, T) matrices and a CPU's memory better, and make it
                    faster than in a usual batch.
    peak_share      FLOP/s of the matrix products on real events (workload.py says what counts)
                    over the machine's own best float32 matrix product, measured in this run
    rows_per_s_bf16 the same under autocast to bfloat16

Times are the best of interleaved repeats; the optimiser's step is left out of both.
"""

from __future__ import annotations

import harness
import torch
import workload
from plain_feseq import PlainFESeq
from torch import nn

from tossctr.training.device import keep_freed_memory


def gradient_error(ours: nn.Module, plain: PlainFESeq) -> float:
    """Length of the difference of the two gradients over all parameters, over that of the plain.

    Rounding may carry an activation over its kink, so that single entries differ by more.
    """
    by_name = dict(ours.named_parameters())
    pairs = [(by_name[plain.source[n]].grad, p.grad) for n, p in plain.named_parameters()]
    own, theirs = (
        torch.cat([g.flatten() for g in side if g is not None]) for side in zip(*pairs, strict=True)
    )
    return float((own - theirs).norm() / theirs.norm())


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--plain-rows", type=int, default=256, help="batch of the plain model")
    parser.add_argument("--max-len", type=int, default=500)
    parser.add_argument("--micro-batch-events", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
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
