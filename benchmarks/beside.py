"""What does another busy process cost a training? FESeq_toy, with threads that sleep or spin.

sleeping  while they wait for each other, the setting that `tossctr` makes
spinning  the default of OpenMP

    <threads>_alone, <threads>_beside  trained rows per second on an idle machine, and beside a
                                       process that keeps one core busy; the best of --repeats
    alone_ratio, beside_ratio          sleeping / spinning
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment

THREADS = {"sleeping": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}  # libgomp's default


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Keep one core busy meanwhile, if wanted."""
    if not wanted:
        yield
        return
    # Its own session, like another user's process: Linux divides CPU time between sessions.
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rows_per_s(folder: Path, keys: list[str], threads: dict[str, str]) -> float:
    """Speed of one `tossctr train`."""
    command = [*harness.TOSSCTR, "train", "--fresh", "--config", str(harness.CONFIGS)]
    overrides = [part for key in keys for part in ("--set", key)]
    subprocess.run(
        [*command, "--expid", "FESeq_toy", *overrides], check=True, env={**os.environ, **threads}
    )
    return float(json.loads((folder / "FESeq_toy" / "metrics.json").read_bytes())["rows_per_s"])


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats = 3_000, 1
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder, options.rows, 1, seed=7)
        keys = [
            f"train_data={folder / 'train.parquet'}",
            f"data_root={folder}",
            f"model_root={folder}",
            "valid_split.method=stratified",
            "epochs=1",
        ]
        prepare(load_experiment(harness.CONFIGS, "FESeq_toy", keys).dataset)
        for _ in range(options.repeats):
            for place in ("alone", "beside"):
                for kind, threads in THREADS.items():
                    with busy(place == "beside"):
                        found = rows_per_s(folder, keys, threads)
                    best[f"{kind}_{place}"] = max(found, best.get(f"{kind}_{place}", 0))
    ratios = {
        f"{place}_ratio": best[f"sleeping_{place}"] / best[f"spinning_{place}"]
        for place in ("alone", "beside")
    }
    harness.finish({"rows": options.rows, **best, **ratios}, options.json)


if __name__ == "__main__":
    main()
