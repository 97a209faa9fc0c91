"""compare: what it trains, what it reuses, and its tables."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.experiments import compare as comparison
from tossctr.experiments.compare import Row, as_markdown, compare, write_tables
from tossctr.families.experiment import load_experiment
from tossctr.metrics.registry import default_metrics
from tossctr.metrics.uncertainty import MeanStd
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.pipeline.train import run_folder
from tossctr.runs.run_folder import load_run
from tossctr.runs.train import train
from tossctr.training.device import resolve_device

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = ["epochs=1", "batch_size=256", "max_len=8", "valid_split.method=stratified"]
CPU = -1


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config folder of a project with 1,200 training rows."""
    shutil.copytree(CONFIGS, tmp_path / "project" / "configs")
    synthesize(tmp_path / "project" / "data" / "toy", 1_200, 200, seed=3)
    return tmp_path / "project" / "configs"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that are run, here in this process: a new one takes seconds to start."""
    ran: list[tuple[str, ...]] = []

    def run_here(*arguments: str) -> None:
        ran.append(arguments)
        named = dict(pairwise(arguments))
        overrides = [v for k, v in pairwise(arguments) if k == "--set"]
        experiment = load_experiment(Path(named["--config"]), named["--expid"], overrides)
        data = prepare(experiment.dataset)
        if arguments[0] == "train":
            train(experiment, data, resolve_device(CPU), run_folder(experiment))

    monkeypatch.setattr(comparison, "run_command", run_here)
    return ran


def trained(commands: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """(experiment, seed) of each training; empties the list."""
    found = []
    for arguments in commands:
        if arguments[0] == "train":
            seed = next(a for a in arguments if a.startswith("seed="))
            found.append((arguments[arguments.index("--expid") + 1], seed))
    commands.clear()
    return found


def test_a_comparison_in_separate_processes(config: Path, tmp_path: Path) -> None:
    (row,) = compare(config, ["DCNv2_toy"], [7], tmp_path / "out of, #1", gpu=CPU, overrides=SMALL)
    run = load_run(tmp_path / "out of, #1" / "seed_7" / "DCNv2_toy")
    assert run.experiment.training.seed == 7
    assert run.experiment.training.epochs == 1
    assert {name: metric.mean for name, metric in row.metrics.items()} == {
        name: run.metrics["best"][name] for name in default_metrics()
    }
    assert row.parameters == sum(p.numel() for p in run.model.module.parameters())
    assert row.rows_per_s == run.metrics["rows_per_s"] > 0
    assert 100 < row.peak_mb < 4_000


def test_only_new_or_changed_runs_are_trained(
    config: Path, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    def again(expids: list[str], seeds: list[int], overrides: list[str]) -> list[Row]:
        return compare(config, expids, seeds, tmp_path / "out", gpu=CPU, overrides=overrides)

    first = again(["DeepFM_toy"], [1, 2], SMALL)
    assert trained(commands) == [("DeepFM_toy", "seed=1"), ("DeepFM_toy", "seed=2")]
    values = first[0].values["AUC"]
    assert len(values) == len(set(values)) == 2  # another seed, another model

    more = again(["DCNv2_toy", "DeepFM_toy"], [2], SMALL)
    assert trained(commands) == [("DCNv2_toy", "seed=2")]
    assert more[1].values["AUC"] == values[1:]

    again(["DeepFM_toy"], [1], [*SMALL, "learning_rate=1e-4"])
    assert trained(commands) == [("DeepFM_toy", "seed=1")]

    synthesize(config.parent / "data" / "toy", 1_200, 200, seed=4)
    again(["DeepFM_toy"], [1], [*SMALL, "learning_rate=1e-4"])
    assert trained(commands) == [("DeepFM_toy", "seed=1")]

    marker = tmp_path / "out" / "seed_1" / "DeepFM_toy" / "experiment.json"
    marker.write_text(marker.read_text().replace('"version": 2', '"version": 0'))
    again(["DeepFM_toy"], [1], [*SMALL, "learning_rate=1e-4"])
    assert trained(commands) == [("DeepFM_toy", "seed=1")]


def test_changed_rows_are_trained_on_even_if_the_vocabulary_is_the_same(
    config: Path, tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    given = ["DCNv2_toy"], [1], tmp_path / "out"
    before = compare(config, *given, gpu=CPU, overrides=SMALL)
    compare(config, *given, gpu=CPU, overrides=SMALL)
    assert trained(commands) == [("DCNv2_toy", "seed=1")]
    raw = tmp_path / "project" / "data" / "toy" / "train.parquet"
    table = pq.read_table(raw)
    clicks = pa.array(np.random.default_rng(0).permutation(table["clicked"].to_numpy()))
    at = table.schema.get_field_index("clicked")
    pq.write_table(table.set_column(at, "clicked", clicks), raw)  # the same ids, other clicks
    after = compare(config, *given, gpu=CPU, overrides=SMALL)
    assert trained(commands) == [("DCNv2_toy", "seed=1")]
    assert after[0].metrics["AUC"] != before[0].metrics["AUC"]


def test_a_labelled_file_replaces_the_validation_split(
    config: Path, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    data = config.parent / "data" / "toy" / "train.parquet"
    (row,) = compare(config, ["DeepFM_toy"], [1], tmp_path, data=data, gpu=CPU, overrides=SMALL)
    run = load_run(tmp_path / "seed_1" / "DeepFM_toy")
    expected = evaluate_run(run, data, device=resolve_device(CPU))
    assert row.values == {name: [expected[name]] for name in default_metrics()}
    assert row.metrics["AUC"].mean != run.metrics["best"]["AUC"]


@pytest.mark.parametrize(
    ("expids", "names"),
    [
        (["FESeq_toy*"], ["FESeq_toy, FESeq_toy_slot, FESeq_toy_history"]),
        (["?IN_toy", "DIN_toy", "B*_toy"], ["DIN_toy, BST_toy"]),
    ],
)
def test_patterns_select_each_experiment_once(expids: list[str], names: list[str]) -> None:
    assert comparison.matching_experiments(CONFIGS, expids) == ", ".join(names).split(", ")


@pytest.mark.parametrize(
    ("expids", "said"),
    [
        (["Nothing_*"], "Nothing_*"),
        (["FESeq_toi"], "FESeq_toy"),
        (["DeepFM_toy", "DeepFM_kuairand"], "cannot be compared: their train_data differ"),
    ],
)
def test_mistakes_are_found_before_training(
    expids: list[str], said: str, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        compare(CONFIGS, expids, [1], tmp_path)
    assert said in error.value.line()
    assert not commands


def test_a_failed_run_stops_the_comparison(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="prepare --expid DeepFM_toy failed"):
        compare(config, ["DeepFM_toy"], [1], tmp_path, gpu=CPU)


def row(**changed: Any) -> Row:
    metrics = {name: MeanStd.of([0.25, 0.75]) for name in default_metrics()}
    values: dict[str, Any] = {
        "expid": "A_toy",
        "model": "A",
        "seeds": (1, 2),
        "metrics": metrics,
        "values": dict.fromkeys(metrics, (0.25, 0.75)),
        "parameters": 12_345,
        "rows_per_s": 6_789.6,
        "peak_mb": 432.1,
    }
    return Row(**{**values, **changed})


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_table_in_markdown_and_json(tmp_path: Path) -> None:
    alone = {name: MeanStd.of([0.25]) for name in default_metrics()}
    write_tables([row(), row(expid="B_toy", seeds=(1,), metrics=alone)], tmp_path)
    head, rule, first, second = (tmp_path / "compare.md").read_text().splitlines()
    assert cells(head)[3:8] == [*default_metrics()]
    assert len(cells(head)) == len(cells(rule)) == len(cells(first))
    assert cells(first)[:4] == ["A_toy", "A", "2", "0.5000 ± 0.3536"]
    assert cells(first)[8:] == ["12,345", "6,790", "432"]
    assert cells(second)[:4] == ["B_toy", "A", "1", "0.2500"]
    assert as_markdown([row()]).splitlines()[2] == first
    written = json.loads((tmp_path / "compare.json").read_text())
    assert [r["expid"] for r in written] == ["A_toy", "B_toy"]
    assert written[0]["metrics"]["AP"] == {
        "mean": 0.5,
        "std": pytest.approx(0.5**1.5),
        "values": [0.25, 0.75],
    }
