"""One epoch over a million rows, from raw files to a submission, with negative sampling.

Each step is a `tossctr` command in its own process: `<step>_s` is its wall-clock time including
start-up, `<step>_mb` its peak resident memory.

    synth, prepare, train, predict   with negative_sampling: 0.1
    epoch_rows                       rows that the epoch trained on
    auc, score                       of the submission, on the test file's clicks
    ceiling_auc, ceiling_score       of the true probabilities
    all_train_s, all_auc, all_score  without sampling, unless --only-sampled
    ratio                            all_train_s / train_s
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import harness

from tossctr.pipeline.submit import against_truth


def command(*words: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of one `tossctr` command."""
    started = time.monotonic()
    peak = harness.peak_mb([*harness.TOSSCTR, *words])
    return time.monotonic() - started, peak


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--test-rows", type=int, default=100_000)
    parser.add_argument("--negative-sampling", type=float, default=0.1)
    parser.add_argument("--expid", default="FESeq_toy")
    parser.add_argument("--only-sampled", action="store_true", help="skip the epoch over all rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows = 20_000, 5_000
    figures: dict[str, float] = {"rows": options.rows}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        files = [
            f"{part}_data={root / part}.parquet" for part in ("train", "test")
        ] + ["sample_submission=null", f"data_root={root}"]  # fmt: skip
        chosen = ["--config", str(harness.CONFIGS), "--expid", options.expid]

        def step(name: str, *words: str) -> None:
            figures[f"{name}_s"], figures[f"{name}_mb"] = command(*words)

        def train_and_predict(name: str, sampling: float) -> None:
            keys = [
                *files,
                f"model_root={root / name}",
                "epochs=1",
                f"negative_sampling={sampling}",
            ]
            changed = [word for key in keys for word in ("--set", key)]
            step(f"{name}train", "train", *chosen, *changed)
            output = root / f"{name}submission.csv"
            run = root / name / options.expid
            step(f"{name}predict", "predict", "--run", str(run), "--output", str(output))
            scores = against_truth(output, root / "truth.parquet")
            for kind, prefix in (("submission", name), ("ceiling", "ceiling_")):
                figures[f"{prefix}auc"] = scores[kind]["AUC"]
                figures[f"{prefix}score"] = scores[kind]["competition_score"]
            if not name:
                metrics = json.loads((run / "metrics.json").read_bytes())
                figures["epoch_rows"] = round(metrics["rows_per_s"] * metrics["seconds"])

        sizes = ["--rows", str(options.rows), "--test-rows", str(options.test_rows), "--seed", "5"]
        step("synth", "synth", str(root), *sizes)
        changed = [word for key in files for word in ("--set", key)]
        step("prepare", "prepare", *chosen, *changed)
        train_and_predict("", options.negative_sampling)
        if not options.only_sampled:
            train_and_predict("all_", 1.0)
            figures["ratio"] = figures["all_train_s"] / figures["train_s"]
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
