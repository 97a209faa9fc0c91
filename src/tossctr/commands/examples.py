"""What `--help` and the command reference show under each command; tests run every line."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "synth": (
        "tossctr synth --rows 1000000 --test-rows 100000",
        "tossctr synth data/toy --rows 60000 --test-rows 6000 --seed 7",
    ),
    "prepare": (
        "tossctr prepare --expid FESeq_medium",
        "tossctr prepare --dataset tossctr_toy --set min_categr_count=5 --json",
        "tossctr prepare --expid FESeq_full --engine ray --workers 2",
    ),
    "check": (
        "tossctr check data/raw/train.parquet",
        "tossctr check data/raw/test.parquet --against data/raw/train.parquet",
    ),
    "export": (
        "tossctr export --dataset tossctr_medium --format fuxictr-h5",
        "tossctr export --expid FESeq_toy --format fuxictr-parquet --output data/fuxictr",
    ),
    "train": (
        "tossctr train --expid FESeq_medium --gpu 0",
        "tossctr train --expid FESeq_toy --set max_len=500 --set learning_rate=5e-4",
        "tossctr train --expid FESeq_toy --folds 5 --quiet",
        "tossctr train --expid FESeq_toy --engine torchrun --workers 2",
    ),
    "plan": (
        "tossctr plan --expid FESeq_full --memory 14GB",
        "tossctr plan --expid FESeq_toy --set max_len=2000 --json",
    ),
    "compare": (
        "tossctr compare --expids FESeq_toy,DIN_toy,DCNv2Seq_toy --seeds 3",
        "tossctr compare --expids '*_kuairand' --data data/kuairand/test.parquet",
    ),
    "tune": ("tossctr tune --expid FESeq_toy --trials 20",),
    "blend": ("tossctr blend --runs FESeq_toy,DCNv2Seq_toy --output checkpoints/blend",),
    "leaderboard": ("tossctr leaderboard", "tossctr leaderboard --root checkpoints --json"),
    "evaluate": (
        "tossctr evaluate --expid FESeq_toy",
        "tossctr evaluate --run checkpoints/FESeq_toy --data data/toy/train.parquet --json",
    ),
    "predict": (
        "tossctr predict --expid FESeq_full --output data/output/submission.csv",
        "tossctr predict --run checkpoints/FESeq_toy --data data/toy/test.parquet",
        "tossctr predict --blend checkpoints/blend --objective logloss",
        "tossctr predict --expid FESeq_full --engine ray --workers 2",
    ),
    "run": (
        "tossctr run",
        "tossctr run --expid FESeq_full --gpu 0 --set batch_size=4096",
        "tossctr run --expid FESeq_toy --synth-rows 20000 --fresh --json",
        "tossctr run --recipe best",
    ),
    "report": ("tossctr report checkpoints/FESeq_toy checkpoints/DCNv2Seq_toy",),
    "version": ("tossctr version",),
}
