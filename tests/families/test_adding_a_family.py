"""What CONTRIBUTING.md promises: a family of models is a class and an entry of FAMILIES; every
command then knows its models. The one added here predicts the smoothed click rate of a field."""

import json
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tossctr
from tossctr.cli import app
from tossctr.config.schema import ModelConfig
from tossctr.families.registry import FAMILIES
from tossctr.metrics.registry import evaluate, reported
from tossctr.training.family import Family, TrainedModel

DATASETS = """
shop:
    train_data: train.csv
    test_data: test.csv
    id_col: id
    valid_split: {method: random, fraction: 0.25}
    label_col: {name: clicked, dtype: float}
    feature_cols:
        - {name: [item, colour], type: categorical, dtype: str}
"""
EXPERIMENTS = """
Base: {dataset_id: shop, batch_size: 64}
item: {model: ClickRate, field: item}
colour: {model: ClickRate, field: colour, smoothing: 5.0}
"""


class ClickRateConfig(ModelConfig):
    without_effect: ClassVar = {"epochs": None, "optimizer": None}

    field: str
    smoothing: float = 10.0  # rows at the mean click rate that each id gets


class ClickRateModel(TrainedModel):
    def __init__(self, column, table):
        self.column, self.table = column, table

    def logits(self, rows, *, device, batch_rows):
        return self.table[np.asarray(rows.categorical)[:, self.column]]


class ClickRates(Family):
    epoch_unit = step_unit = "fit"
    advice_if_first_was_best = "choose another field"

    @property
    def models(self):
        return {"ClickRate": ClickRateConfig}

    def advice_if_last_was_best(self, experiment, history):
        return "choose another field"

    def check(self, experiment, features, processes):
        name = experiment.hyperparameters.field
        if name not in features.names("categorical"):
            raise tossctr.UserError("is no categorical field", key="field", value=name)

    def fit(self, experiment, train_rows, valid_rows, folder, how):
        options = experiment.hyperparameters
        model = self._of(experiment, train_rows.features)
        ids = np.asarray(train_rows.categorical)[:, model.column]
        label = np.asarray(train_rows.labels, np.float64)
        size = len(model.table)
        clicks = np.bincount(ids, label, size) + options.smoothing * label.mean()
        rate = clicks / (np.bincount(ids, minlength=size) + options.smoothing)
        model.table = np.log(rate / (1 - rate))
        folder.keep({"table": torch.from_numpy(model.table)})
        training = experiment.training
        logit = model.logits(valid_rows, device=how.device, batch_rows=1)
        names = reported(training.metrics, training.monitor)
        metrics = evaluate(valid_rows.labels, logit, names)
        best = {"epoch": 1, "step": 1, **metrics, "monitor": metrics["AUC"], "learning_rate": 0}
        return {"best": best, "history": [best], "parameters": size, "rows_per_s": 1.0,
                "seconds": 1.0, "skipped_batches": 0}  # fmt: skip

    def load(self, experiment, features, folder):
        model = self._of(experiment, features)
        model.table = folder.tensors({"table": torch.from_numpy(model.table)})["table"].numpy()
        return model

    def plan(self, experiment, data, device, memory):
        raise tossctr.UserError("has no micro-batches", key="model", value=experiment.model)

    @staticmethod
    def _of(experiment, features):
        name = experiment.hyperparameters.field
        size = features[name].vocab_size
        return ClickRateModel(features.names("categorical").index(name), np.zeros(size))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    (root / "configs").mkdir()
    (root / "configs" / "dataset_config.yaml").write_text(DATASETS)
    (root / "configs" / "model_config.yaml").write_text(EXPERIMENTS)
    rng = np.random.default_rng(3)
    item, colour = rng.integers(0, 6, 600), rng.integers(0, 3, 600)
    click = rng.random(600) < np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.9])[item]
    rows = [f"{i},{int(y)},i{a},c{b}" for i, (y, a, b) in enumerate(zip(click, item, colour))]  # noqa: B905
    head = "id,clicked,item,colour"
    (root / "train.csv").write_text("\n".join([head, *rows[:500]]) + "\n")
    (root / "test.csv").write_text("\n".join([head, *rows[500:]]) + "\n")
    return root


@pytest.fixture
def command(project, monkeypatch):
    """`command(*words)`: the lines printed by a command that is given the project's configs."""
    monkeypatch.chdir(project)
    monkeypatch.setitem(FAMILIES, "click rates", cache(ClickRates))

    def run(*words):
        done = CliRunner().invoke(app, [*words, "--quiet"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output.strip().splitlines()

    return run


def test_an_unknown_family_is_refused(project):
    with pytest.raises(tossctr.UserError, match="model is not a known model"):
        tossctr.load_experiment(project / "configs", "item")


def test_every_command_knows_a_family_that_is_one_entry_of_the_registry(project, command):
    for expid in ("item", "colour"):
        command("train", "--expid", expid, "--folds", "2")
        command("train", "--expid", expid)
    run = tossctr.load_run(project / "checkpoints" / "item")
    other = tossctr.load_run(project / "checkpoints" / "colour")
    assert run.held_out_metrics["AUC"] > 0.7 > other.held_out_metrics["AUC"]
    (line,) = command("evaluate", "--run", "checkpoints/item", "--json")
    assert json.loads(line)["AUC"] == pytest.approx(run.held_out_metrics["AUC"])
    command("blend", "--runs", "checkpoints/item.folds,checkpoints/colour.folds", "--output", "mix")
    command("predict", "--run", "checkpoints/item", "--objective", "raw", "--output", "out.csv")
    scored = np.genfromtxt("out.csv", delimiter=",", skip_header=1)[:, 1]
    test = np.genfromtxt("test.csv", str, delimiter=",", skip_header=1)
    assert len(np.unique(scored)) == len(np.unique(test[:, 2]))  # a rate for each item
    command("predict", "--blend", "mix", "--output", "mixed.csv")
    command("report", "checkpoints/item", "mix", "--output", "report.html")
    assert "ClickRate" in (project / "report.html").read_text()
    (line,) = command("leaderboard", "--root", ".", "--json")
    assert {entry["model"] for entry in json.loads(line)} >= {"ClickRate", "ClickRate + ClickRate"}


@pytest.mark.usefixtures("command")
def test_its_own_checks_come_before_anything_is_prepared(project):
    experiment = tossctr.load_experiment(project / "configs", "item", ["field=size"])
    with pytest.raises(tossctr.UserError, match="is no categorical field"):
        tossctr.train(experiment)
