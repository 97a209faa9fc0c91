"""Commands import only what they use; each runs in a fresh process that lists its modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment
from tossctr.pipeline.train import train_experiment

CONFIGS = Path(__file__).parents[1] / "configs"
HEAVY = {"lightgbm", "lightning", "matplotlib", "optuna", "ray", "sklearn", "torch", "torchmetrics"}


def heavy_imports(arguments: list[str], folder: Path, code: int = 0) -> set[str]:
    """What of `HEAVY` a command has imported when it ends, which has to be with `code`."""
    script = (
        "import sys; from tossctr.cli import main\n"
        f"try: main({arguments})\n"
        f"except SystemExit as end: assert (end.code or 0) == {code}, end.code\n"
        "print('\\nimported', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network in runs/DCNv2_toy, and one.parquet of one row."""
    folder = tmp_path_factory.mktemp("project")
    files = synthesize(folder, 400, 20)
    pq.write_table(pq.read_table(files.test).slice(0, 1), folder / "one.parquet")
    keys = {
        "train_data": files.train, "test_data": files.test, "data_root": folder,
        "model_root": folder / "runs", "epochs": 1, "num_workers": 0, "verbose": 0,
    }  # fmt: skip
    experiment = load_experiment(CONFIGS, "DCNv2_toy", [f"{k}={v}" for k, v in keys.items()])
    train_experiment(experiment, torch.device("cpu"))
    return folder


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["train", "--expid", "nowhere", "--config", "nowhere"], 2),
        (["run", "--gpu", "many"], 2),
        (["synth", "data", "--rows", "50", "--test-rows", "5"], 0),
        (["check", "nowhere.parquet"], 2),
    ],
)
def test_commands_without_a_model_import_no_framework(
    line: list[str], code: int, tmp_path: Path
) -> None:
    assert heavy_imports(line, tmp_path, code) == set()


def test_leaderboard_imports_no_framework(project: Path) -> None:
    assert heavy_imports(["leaderboard", "--root", "runs"], project) == set()


def test_compare_refuses_a_misspelt_experiment_without_a_framework(tmp_path: Path) -> None:
    line = ["compare", "--config", str(CONFIGS), "--expids", "FESeq_misspelt"]
    assert heavy_imports(line, tmp_path, code=2) == set()


def test_compare_refuses_a_table_that_it_did_not_write_without_a_framework(tmp_path: Path) -> None:
    (tmp_path / "compare.md").write_text("mine")
    line = ["compare", "--config", str(CONFIGS), "--expids", "FESeq_toy", "--output", "."]
    assert heavy_imports(line, tmp_path, code=2) == set()


def test_predict_by_a_network_imports_torch_alone(project: Path) -> None:
    line = ["predict", "--run", "runs/DCNv2_toy", "--data", "one.parquet", "--gpu", "-1"]
    assert heavy_imports(line, project) == {"torch"}
