"""How fast does FESeq_medium score histories as long as Toss's? Forward only, float32.

    ratio       rows_per_s relative to the plain padded model (plain_feseq.py) with the same
                weights, whose probabilities are verified to be equal; `--plain-rows` as in train.py
    peak_share  as in train.py

Times are the best of interleaved repeats, without reading and encoding.
"""

from __future__ import annotations

import harness
import torch
import workload
from plain_feseq import PlainFESeq

from tossctr.training.device import keep_freed_memory


def main() -> None:
    options = workload.arguments(__doc__, rows=1024, repeats=5).parse_args()
    keep_freed_memory()  # as `train` and `predict` do, for both models
    if options.quick:
        options.rows, options.repeats = 256, 3

    lengths = workload.toss_lengths(options.rows, options.max_len, seed=1)
    parts = workload.batch_of(lengths, seed=1).split(options.micro_batch_events)
    model = workload.medium(options.max_len).eval()
    plain = PlainFESeq(model).eval()
    some = workload.batch_of(lengths[: options.plain_rows], seed=2)
    ours = workload.predict(model, some.split(options.micro_batch_events))
    error = (ours - workload.predict(plain, [some])).abs().max()

    took, plain_took, peaks = [], [], []
    for _ in range(options.repeats):
        took += workload.seconds(lambda: workload.predict(model, parts), 1)
        plain_took += workload.seconds(lambda: workload.predict(plain, [some]), 1)
        peaks.append(workload.matmul_peak())
    rows_per_s = options.rows / min(took)
    plain_rows_per_s = options.plain_rows / min(plain_took)
    harness.finish(
        {
            "rows": options.rows,
            "events_per_row": float(lengths.mean() + 1),
            "threads": torch.get_num_threads(),
            "rows_per_s": rows_per_s,
            "plain_rows_per_s": plain_rows_per_s,
            "ratio": rows_per_s / plain_rows_per_s,
            "peak_share": workload.forward_flop(model, lengths) / min(took) / max(peaks),
            "probability_error": float(error),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
