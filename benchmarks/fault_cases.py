"""The commands that `faults.py --every` kills, their initial states, and what is compared."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fault_points import run_forked

from tossctr.cli import main as tossctr
from tossctr.data.synthetic import synthesize
from tossctr.experiments import compare
from tossctr.files import write_json
from tossctr.inference import resumable
from tossctr.runs import run_folder

TRAIN_ROWS, TEST_ROWS = 6_000, 80
NEGATIVE_ROWS = 200  # of the train rows; with all clicks, of which a calibration needs 50
MOMENT = "2026-01-01T00:00:00+00:00"
CONFIGS = {
    "dataset_config.yaml": """\
few:
    data_root: data
    train_data: data/toy/train.parquet
    test_data: data/toy/test.parquet
    sample_submission: data/toy/sample_submission.csv
    id_col: ID
    label_col: {name: clicked, dtype: float}
    valid_split: {method: stratified, fraction: 0.4}
    feature_cols:
        - {name: [gender, inventory_id], dtype: str, type: categorical}
        - {name: seq, dtype: str, type: sequence, splitter: ",", max_len: 6}
        - {name: [l_feat_1, feat_a_1], dtype: float, type: numeric, fill_na: 0}
""",
    "model_config.yaml": """\
Base: {num_workers: 0, early_stop_patience: 9, dataset_id: few,
       metrics: [AUC, logloss, AP, WLL, competition_score]}
net: {model: FESeq, target_field: [inventory_id], sequence_field: [seq], embedding_dim: 4,
      dnn_hidden_units: [4], num_heads: 1, stacked_transformer_layers: 1, batch_size: 90, epochs: 2,
      checkpoint_minutes: 0.00001, net_dropout: 0.1}
trees: &trees {model: LightGBM, target_field: [inventory_id], num_boost_round: 2, eval_rounds: 1,
      num_leaves: 3, min_data_in_leaf: 5, top_events: 2, half_lives: [4], learning_rate: 0.1}
other: {<<: *trees, num_leaves: 2}
""",
    "recipes.yaml": "both: {experiments: [trees, other], folds: 2}\n",
    "tune/LightGBM.yaml": "num_leaves: {low: 2, high: 9}\n",
}
USERS = (
    "notes.txt", "data/notes.txt", "data/toy/notes.txt", "data/few/notes.txt",
    "checkpoints/notes.txt", "checkpoints/tune/notes.txt", "out/notes.txt",
)  # fmt: skip
Step = tuple[str, ...] | Callable[[Path], None]


def _without_calibration(root: Path) -> None:
    run = root / "checkpoints" / "trees"
    for file in [run / "validation.parquet", *run.glob("calibration*")]:
        file.unlink()


CPU = ("--gpu", "-1")
CONFIG = ("--config", "configs")
MORE = ("--set", "num_leaves=4")
PREPARE = ("prepare", *CONFIG, "--dataset", "few")
NET = ("train", *CONFIG, "--expid", "net", *CPU)
TREES = ("train", *CONFIG, "--expid", "trees", *CPU)
OTHER = ("train", *CONFIG, "--expid", "other", *CPU)
FOLDS = ("--folds", "2")
BLEND = ("blend", "--runs", "trees,other", *CPU)
PREDICT = ("predict", *CONFIG, "--expid", "trees", *CPU, "--output", "out/submission.csv")
SYNTH = ("synth", "data/new", "--rows", "100", "--test-rows", "50")
EXPORT = ("export", *CONFIG, "--dataset", "few", "--output", "out", "--format")
RUN = ("run", *CONFIG, *CPU, "--output", "out/submission.csv", "--no-report")
MEMBERS = (PREPARE, (*TREES, *FOLDS), (*OTHER, *FOLDS))


@dataclass(frozen=True)
class Case:
    """A command, and the steps that create its initial state."""

    command: tuple[str, ...]
    before: tuple[Step, ...] = field(default=())


CASES = {
    "prepare": Case(PREPARE),
    "prepare-changed": Case((*PREPARE, "--set", "min_categr_count=3"), (PREPARE,)),
    "train": Case(NET, (PREPARE,)),
    "train-changed": Case((*NET, "--set", "epochs=1"), (PREPARE, NET)),
    "train-trees": Case(TREES, (PREPARE,)),
    "train-over-folds": Case((*TREES, *MORE), (PREPARE, TREES, (*TREES, *FOLDS))),
    "folds": Case((*TREES, *FOLDS), (PREPARE, TREES)),
    "folds-net": Case((*NET, *FOLDS, "--set", "epochs=1"), (PREPARE,)),
    "folds-changed": Case((*TREES, *FOLDS, *MORE), (PREPARE, TREES, (*TREES, *FOLDS))),
    "blend": Case(BLEND, MEMBERS),
    "blend-changed": Case((*BLEND, "--method", "rank_mean"), (*MEMBERS, BLEND)),
    "calibrate": Case(
        ("evaluate", *CONFIG, "--expid", "trees", *CPU, "--objective", "competition_score",
         "--data", "data/toy/train.parquet"),
        (PREPARE, TREES, _without_calibration),
    ),
    "tune": Case(("tune", *CONFIG, "--expid", "trees", *CPU, "--trials", "3"), (PREPARE,)),
    "compare": Case(
        ("compare", *CONFIG, "--expids", "trees,other", "--seeds", "1", *CPU), (PREPARE,)
    ),
    "report": Case(("report", "checkpoints/trees", *CPU, "--output", "out/report.html"),
                   (PREPARE, TREES)),
    "predict": Case(PREDICT, (PREPARE, TREES)),
    "predict-changed": Case((*PREDICT, "--objective", "raw"), (PREPARE, TREES, PREDICT)),
    "synth": Case(SYNTH),
    "synth-changed": Case((*SYNTH, "--seed", "9"), (SYNTH,)),
    "export": Case((*EXPORT, "fuxictr-parquet"), (PREPARE,)),
    "export-h5": Case((*EXPORT, "fuxictr-h5"), (PREPARE, (*EXPORT, "fuxictr-parquet"))),
    "run": Case((*RUN, "--expid", "trees")),
    "run-recipe": Case((*RUN, "--recipe", "both")),
}  # fmt: skip


class Project:
    """One folder for all states, as stores and markers contain absolute paths."""

    def __init__(self, home: Path) -> None:
        self.home, self.root, self.log = home, home / "project", home / "log"
        self._states: dict[tuple[Step, ...], Path] = {}

    def put(self, steps: tuple[Step, ...]) -> None:
        """Put the folder into its state after these steps."""
        shutil.rmtree(self.root, ignore_errors=True)
        if steps in self._states:
            shutil.copytree(self._states[steps], self.root)
            return
        if steps:
            self.put(steps[:-1])
            last = steps[-1]
            if callable(last):
                last(self.root)
            elif self.run(last)[0] != 0:
                raise SystemExit(f"{' '.join(last)} failed without a kill:\n{self.said}")
        else:
            self._begin()
        self._states[steps] = self.home / f"state-{len(self._states)}"
        shutil.copytree(self.root, self._states[steps])

    def run(self, command: tuple[str, ...], kill_at: int = 0) -> tuple[int, list[str]]:
        """Run a command; return its exit code and the points that it reached."""

        def work() -> None:
            compare._tossctr = _command  # else it starts processes that are not watched
            run_folder.write_json = _write_at_one_moment
            resumable.CHUNK_ROWS = 1  # store each batch's scores, as for large files
            _command(*command)

        return run_forked(work, self.log, cwd=self.root, watch=(self.root, kill_at))

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def _begin(self) -> None:
        for name, text in CONFIGS.items():
            file = self.root / "configs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        toy = self.root / "data" / "toy"
        synthesize(toy, TRAIN_ROWS, TEST_ROWS, seed=5)
        rows = pq.read_table(toy / "train.parquet")
        clicked = pc.equal(rows["clicked"], 1)
        few = [rows.filter(pc.invert(clicked)).slice(0, NEGATIVE_ROWS), rows.filter(clicked)]
        pq.write_table(pa.concat_tables(few), toy / "train.parquet")
        for name in USERS:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(f"{name} is the user's")


def _command(*words: str) -> None:
    try:
        tossctr(words)
    except SystemExit as stop:
        if stop.code:
            raise


def _write_at_one_moment(path: Path, value: Any) -> None:
    """Write fixed times, as a run's hashes are part of folds, blends and calibrations."""
    if path.name == "metrics.json":
        value = {k: 1.0 if _TIMES.search(k) else v for k, v in value.items()}
        value = {k: MOMENT if k == "finished" else v for k, v in value.items()}
    write_json(path, value)


# Names and texts that depend on the time of execution.
_TIMES = re.compile(r"^stores$|seconds|_s$|_mb$|time|per_s|worker|command")
_MINUTE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d")
_OF_THE_MOMENT = re.compile(r"(^|/)(logs|workers)(/|$)|\.lock$|(^|/)lock$|results\.csv$|study\.db")


def contents(root: Path) -> dict[str, str]:
    """A hash of each file and empty folder, without what depends on the time of execution."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if _OF_THE_MOMENT.search(name):
            continue
        if path.is_file():
            found[name] = hashlib.sha256(_content(path)).hexdigest()
        elif path.is_dir() and not any(path.iterdir()):
            found[name + "/"] = ""
    return found


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name.startswith(".tossctr-") or path.suffix == ".written":
        # Contains times, or the hash of a page that contains them.
        return b""
    if path.suffix == ".html":
        return _MINUTE.sub(b"", content)
    if path.name == "compare.md":  # without its last two columns: speed and memory
        return b"\n".join(line.rsplit(b"|", 3)[0] for line in content.splitlines())
    if path.suffix != ".json":
        return content
    try:
        return json.dumps(_timeless(json.loads(content))).encode()
    except ValueError:
        return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _TIMES.search(k)}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
