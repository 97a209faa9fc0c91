"""Do commands recover from SIGKILL and from disks that refuse to write?

A small project is prepared, trained and scored once without a fault, as the reference. Then one of
`prepare`, `train` and `predict` in turn is killed at a random time (or cannot write files beyond a
random size), and the same command is repeated, and possibly killed again. The final store, weights,
validation history and submission are compared with the reference, byte by byte.

    kills           processes killed
    write_failures  processes that could not write
    resumed         commands that resumed the work of a killed one
    identical       share of results that are equal to the reference
    tracebacks      processes that ended with a traceback

With `--every` every command (`fault_cases`) is killed at each of its changes to files instead, and
repeated, and the complete folder is compared: number of `points`, share of `identical` results, and
points at which a user's file or an earlier result was `lost`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import harness
from fault_points import run_forked

from tossctr.cli import main as tossctr
from tossctr.data.synthetic import synthesize
from tossctr.inference import resumable

STAGES = ("prepare", "train", "predict")
SETTINGS = {
    "max_len": 16,
    "epochs": 2,
    "batch_size": 128,
    "valid_split.method": "stratified",
    "net_dropout": 0.1,
    "num_workers": 0,
    "checkpoint_minutes": 0.002,
}


class Project:
    """A folder with configs and raw files; each stage runs in its own process."""

    def __init__(self, root: Path, rows: int) -> None:
        self.root = root
        shutil.copytree(harness.CONFIGS, root / "configs")
        synthesize(root / "data" / "toy", rows, 3 * rows, seed=5)

    def copy(self, root: Path) -> Project:
        shutil.copytree(self.root, root)
        project = Project.__new__(Project)
        project.root = root
        return project

    def arguments(self, stage: str) -> list[str]:
        config = ["--config", str(self.root / "configs"), "--expid", "FESeq_toy"]
        keys = harness.overrides(SETTINGS)
        match stage:
            case "prepare":
                return ["prepare", *config, *keys]
            case "train":
                return ["train", *config, *keys, "--gpu", "-1"]
        output = str(self.root / "out" / "submission.csv")
        return ["predict", *config, "--gpu", "-1", "--output", output]

    def run(self, stage: str, *, kill_after: float | None = None, limit: int | None = None) -> int:
        """Run a stage in a fork of this process, with its output in `log`; return its exit code,
        which is negative if it was killed."""
        return run_forked(
            lambda: tossctr(self.arguments(stage)),
            self.root / "log",
            kill_after=kill_after,
            limit=limit,
        )[0]

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def result(self, stage: str) -> str:
        """A hash of a stage's results."""
        digest = hashlib.sha256()
        match stage:
            case "prepare":
                folder = self.root / "data" / "tossctr_toy"
                for path in sorted(p for p in folder.rglob("*") if p.name != "prepare.json"):
                    digest.update(str(path.relative_to(folder)).encode())
                    digest.update(path.read_bytes() if path.is_file() else b"")
            case "train":
                folder = self.root / "checkpoints" / "FESeq_toy"
                digest.update((folder / "model.safetensors").read_bytes())
                metrics = json.loads((folder / "metrics.json").read_text())
                digest.update(json.dumps(metrics["history"]).encode())
                digest.update(" ".join(sorted(p.name for p in folder.parent.iterdir())).encode())
            case _:
                for path in sorted((self.root / "out").iterdir()):
                    digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def measure(kills: int, failures: int, rows: int, seed: int = 0) -> dict[str, object]:
    """Run until `kills` processes were killed and `failures` could not write."""
    os.environ["OMP_NUM_THREADS"] = "1"
    resumable.CHUNK_ROWS = 1  # store each batch's scores, as for large files
    draw = random.Random(seed)
    counts = {"kills": 0, "write_failures": 0, "resumed": 0, "results": 0, "tracebacks": 0}
    same = 0
    with tempfile.TemporaryDirectory() as name:
        made = Project(Path(name) / "0", rows)
        before, seconds, expected = {}, {}, {}
        for number, stage in enumerate(STAGES, 1):
            before[stage] = made
            made = made.copy(Path(name) / f"{number}")
            move(made, before[stage].root)
            start = time.monotonic()
            if made.run(stage) != 0:
                raise SystemExit(f"the reference failed:\n{made.log}")
            seconds[stage] = time.monotonic() - start
            expected[stage] = made.result(stage)
        for trial in range(10**9):
            if counts["kills"] >= kills and counts["write_failures"] >= failures:
                break
            stage = STAGES[trial % 3]
            project = before[stage].copy(Path(name) / "trial")
            move(project, before[stage].root)
            refuse = counts["write_failures"] < failures and trial % 2 == 1
            if refuse:
                code = project.run(stage, limit=draw.randrange(100, 400_000))
                counts["write_failures"] += code == 2
                counts["tracebacks"] += "Traceback" in project.log
            while not refuse and counts["kills"] < kills:
                code = project.run(stage, kill_after=draw.uniform(0, seconds[stage]))
                if code != -signal.SIGKILL:
                    break
                counts["kills"] += 1
                if draw.random() < 0.7:  # else killed again
                    break
            code = project.run(stage)
            counts["resumed"] += code == 0 and has_resumed(stage, project.log)
            counts["tracebacks"] += "Traceback" in project.log
            counts["results"] += 1
            right = code == 0 and project.result(stage) == expected[stage]
            same += right
            if not right:
                print(
                    f"trial {trial}: another result of {stage}:\n{project.log}",
                    file=sys.stderr,
                )
            shutil.rmtree(project.root)
    return {**counts, "identical": same / counts["results"]}


def has_resumed(stage: str, log: str) -> bool:
    if stage == "prepare":
        return "transform:" in log and "fit:" not in log
    return "resuming from epoch" in log or "already predicted by an interrupted command" in log


def move(project: Project, old: Path) -> None:
    """Adapt the absolute paths in a copy of a project that was made in another folder."""
    for path in (project.root / "data").rglob("prepare.json"):
        path.write_text(path.read_text().replace(str(old), str(project.root)))
    for raw in (project.root / "data" / "toy").iterdir():
        times = (old / raw.relative_to(project.root)).stat()
        os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--write-failures", type=int, default=30)
    parser.add_argument(
        "--rows", type=int, default=6_000, help="training rows; 3 times as many are scored"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", action="store_true", help="kill at every change to files")
    parser.add_argument("--commands", help="with --every: names, separated by commas")
    parser.add_argument("--stride", type=int, default=1, help="with --every: use each n-th point")
    parser.add_argument("--limit", type=int, help="with --every: maximum of points per command")
    options = parser.parse_args()
    if options.every:
        from fault_sweep import CASES, sweep

        names = options.commands.split(",") if options.commands else list(CASES)
        counts = sweep(names, stride=options.stride, limit=3 if options.quick else options.limit)
        share = counts["identical"] / counts["points"]
        harness.finish({**counts, "identical": share}, options.json)
        return
    if options.quick:
        options.kills, options.write_failures, options.rows = 9, 3, 2_000
    figures = measure(options.kills, options.write_failures, options.rows, options.seed)
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
