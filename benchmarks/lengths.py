"""What does a longer `max_len` cost? FESeq_medium on the same rows, as long as those of Toss.

For each `max_len`: mean events per row after truncation, rows per second of training and scoring,
and the cost of a row relative to the first `max_len`, in time and, for comparison, in FLOP of a
model that pads.
"""

from __future__ import annotations

import harness
import workload

from tossctr.training.device import keep_freed_memory

MAX_LENS = (100, 500, 2000, 6590)


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--micro-batch-events", type=int, default=8192)
    options = parser.parse_args()
    keep_freed_memory()  # like `train` and `predict`
    if options.quick:
        options.rows = 64
    figures: dict[str, object] = {"rows": options.rows}
    columns = "{:>8} {:>15} {:>15} {:>17} {:>11} {:>12}"
    heads = ("max_len", "events per row", "train rows/s", "predict rows/s", "cost", "if padded")
    print(columns.format(*heads))
    for max_len in MAX_LENS:
        lengths = workload.toss_lengths(options.rows, max_len, seed=1)
        parts = workload.batch_of(lengths, seed=1).split(options.micro_batch_events)
        model = workload.medium(max_len)
        trained = options.rows / min(
            workload.seconds(lambda m=model, p=parts: workload.train_step(m, p), 1)
        )
        scored = options.rows / min(
            workload.seconds(lambda m=model, p=parts: workload.predict(m, p), 1)
        )
        padded = workload.forward_flop(model, lengths * 0 + max_len)
        if max_len == MAX_LENS[0]:
            first, first_padded = trained, padded
        line = (lengths.mean() + 1, trained, scored, first / trained, padded / first_padded)
        print(columns.format(max_len, *(f"{x:.4g}" for x in line)))
        figures[f"rows_per_s_{max_len}"] = trained
        figures[f"predict_rows_per_s_{max_len}"] = scored
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
