"""What CONTRIBUTING promises: a metric is one entry of `METRICS`, and every command knows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tossctr.config.schema import Experiment
from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.experiments import compare as comparison
from tossctr.experiments.leaderboard import leaderboard
from tossctr.families.experiment import load_experiment
from tossctr.metrics.predictions import LabelledPredictions
from tossctr.metrics.registry import METRICS, Metric, evaluate
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.report.collect import collect
from tossctr.report.tables import scores
from tossctr.runs.run import Run
from tossctr.runs.run_folder import load_run
from tossctr.runs.train import train
from tossctr.training.device import resolve_device

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CPU = -1
OVERRIDES = [
    "max_len=8", "batch_size=256", "epochs=2", "num_workers=0", "valid_split.method=stratified",
    "valid_split.fraction=0.3", "metrics=[AUC, Brier]", "monitor=Brier",
]  # fmt: skip


def brier(rows: LabelledPredictions) -> float:
    return float(np.mean((rows.probability - rows.label) ** 2))


@pytest.fixture
def with_brier(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Metric("Brier score", brier, higher_is_better=False, shown_by_default=True)
    monkeypatch.setitem(METRICS, "Brier", metric)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config folder of a project with 600 training rows."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    synthesize(tmp_path / "data" / "toy", 600, 100, seed=3)
    return tmp_path / "configs"


def trained(config: Path, folder: Path) -> tuple[Experiment, Run]:
    """DCNv2_toy trained where `compare` would train it with seed 1."""
    root = folder / "seed_1"
    own = ["seed=1", f"model_root={root}"]
    experiment = load_experiment(config, "DCNv2_toy", [*OVERRIDES, *own])
    data = prepare(experiment.dataset)
    train(experiment, data, resolve_device(CPU), root / "DCNv2_toy")
    return experiment, load_run(root / "DCNv2_toy")


def test_a_metric_is_added_by_one_entry(
    config: Path, tmp_path: Path, with_brier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, device = tmp_path / "compared", resolve_device(CPU)
    experiment, run = trained(config, folder)

    # Training monitors it, in its direction.
    assert experiment.training.monitor_mode == "min"
    best = run.metrics["best"]
    assert best["monitor"] == best["Brier"] == min(row["Brier"] for row in run.metrics["history"])

    # `evaluate` and the leaderboard give it, calibrated if asked for.
    assert evaluate_run(run, None, device=device)["Brier"] == pytest.approx(best["Brier"])
    balanced = evaluate_run(run, None, device=device, objective="competition_score")
    assert balanced["Brier"] != pytest.approx(best["Brier"], rel=0.01)
    assert balanced["AUC"] == pytest.approx(best["AUC"])
    (entry,) = leaderboard(folder)
    assert entry.metrics["Brier"] == best["Brier"]

    # `compare` and the report have a column and a row for it.
    monkeypatch.setattr(comparison, "run_command", lambda *arguments: None)  # all is trained
    rows = comparison.compare(config, ["DCNv2_toy"], [1], folder, gpu=CPU, overrides=OVERRIDES)
    head, _, line = comparison.as_markdown(rows).splitlines()
    assert dict(zip(head.split(" | "), line.split(" | "), strict=True))["Brier"] == (
        f"{best['Brier']:.4f}"
    )
    shown = {row[0]: row for row in scores([collect(run, "run", device)]).rows}
    assert f"{best['Brier']:.5f}" in shown["Brier score, raw"][2]


def test_without_the_entry_it_is_refused(config: Path) -> None:
    with pytest.raises(UserError, match="names an unknown metric"):
        load_experiment(config, "DCNv2_toy", OVERRIDES)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.ranking])
def test_ranking_metrics_depend_on_the_order_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    label, logit, group = rng.integers(0, 2, 300), rng.normal(size=300), rng.integers(0, 9, 300)
    before = evaluate(label, logit, [name], group=group)
    assert evaluate(label, 2 * logit - 1, [name], group=group) == before


def test_after_calibration_the_ranking_is_that_of_the_raw_predictions() -> None:
    rng = np.random.default_rng(1)
    label, raw, other = rng.integers(0, 2, 300), rng.normal(size=300), rng.normal(size=300)
    before, after = evaluate(label, raw), evaluate(label, other, ranked_by=raw)
    losses = evaluate(label, other, ["logloss", "WLL"])
    score = 0.5 * before["AP"] + 0.5 / (1 + losses["WLL"])
    assert after == {"AUC": before["AUC"], "AP": before["AP"], **losses, "competition_score": score}
