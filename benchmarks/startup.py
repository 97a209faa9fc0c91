"""How much CPU does a short command take before it can answer?

Each figure is the minimum user + system CPU seconds of the process over `--repeats` runs; the
commands and the two baselines run in turn, in a small project that is trained first.

    predict_one_row_cpu_s  `tossctr predict` on a file of one row, by a trained network
    leaderboard_cpu_s      `tossctr leaderboard` on a folder of one run
    help_cpu_s             `tossctr --help`
    compare_refusal_cpu_s  `tossctr compare` with an unknown experiment
    numpy_cpu_s            baseline: `import numpy`
    torch_cpu_s            baseline: `import torch`

pandas is hidden from all of them: only the tests install it, and pyarrow imports it where it is.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import pyarrow.parquet as pq

EXPID = "DCNv2_toy"
WITHOUT_PANDAS = """
import sys

class Hidden:
    def find_spec(self, name, *_):
        if name == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
"""
COMMAND = [
    sys.executable,
    "-c",
    f"{WITHOUT_PANDAS}from tossctr.cli import run_process; run_process()",
]


def make_project(folder: Path, rows: int) -> None:
    """Raw files, a run of one epoch in `runs`, and `one.parquet` of one row."""
    subprocess.run(
        [*harness.TOSSCTR, "synth", "raw", "--rows", str(rows), "--test-rows", "10", "--quiet"],
        cwd=folder, check=True,
    )  # fmt: skip
    paths = {"train_data": "raw/train.parquet", "test_data": "raw/test.parquet",
             "data_root": "prepared", "model_root": "runs"}  # fmt: skip
    keys = [f"{key}={folder / path}" for key, path in paths.items()]
    overrides = [part for key in [*keys, "epochs=1", "num_workers=0"] for part in ("--set", key)]
    train = [
        *harness.TOSSCTR,
        "train",
        "--config",
        str(harness.CONFIGS),
        "--expid",
        EXPID,
        "--gpu",
        "-1",
    ]
    subprocess.run(
        [*train, *overrides, "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    pq.write_table(pq.read_table(folder / "raw/test.parquet").slice(0, 1), folder / "one.parquet")


def cpu_seconds(command: list[str], folder: Path, code: int) -> float:
    """User + system seconds of a command that has to end with `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2_000, help="of the training file")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.repeats = 2
    predict = ["predict", "--run", f"runs/{EXPID}", "--data", "one.parquet", "--gpu", "-1"]
    refused = ["compare", "--config", str(harness.CONFIGS), "--expids", "FESeq_misspelt"]
    commands = {
        "predict_one_row_cpu_s": ([*COMMAND, *predict, "--fresh"], 0),
        "leaderboard_cpu_s": ([*COMMAND, "leaderboard", "--root", "runs"], 0),
        "help_cpu_s": ([*COMMAND, "--help"], 0),
        "compare_refusal_cpu_s": ([*COMMAND, *refused], 2),
        "numpy_cpu_s": ([sys.executable, "-c", "import numpy"], 0),
        "torch_cpu_s": ([sys.executable, "-c", f"{WITHOUT_PANDAS}import torch"], 0),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_project(folder, options.rows)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, (command, code) in commands.items():
                seconds[name].append(cpu_seconds(command, folder, code))
    figures = {name: min(values) for name, values in seconds.items()}
    harness.finish({"repeats": options.repeats, **figures}, options.json)


if __name__ == "__main__":
    main()
