"""What is logged to MLflow, read back from its database."""

import importlib.util
import json
import socket
import sqlite3
from pathlib import Path

import pytest
import torch

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.runs import mlflow_log
from tossctr.runs.checks import check_model
from tossctr.runs.mlflow_log import log_run
from tossctr.runs.train import train

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def experiment(tmp_path):
    synthesize(tmp_path, 400, 50, seed=3)

    def load(uri):
        keys = [f"data_root={tmp_path}", f"train_data={tmp_path / 'train.parquet'}", "epochs=2",
                "valid_split.method=stratified", "valid_split.fraction=0.3", "max_len=8",
                "num_workers=0", f"mlflow_uri={uri}"]  # fmt: skip
        return load_experiment(CONFIGS, "DeepFM_toy", keys)

    return load


def test_a_training_is_one_run_with_its_config_and_every_validation(experiment, tmp_path):
    database = tmp_path / "runs.db"
    chosen = experiment(f"sqlite:///{database}")
    check_model(chosen)
    run = train(chosen, prepare(chosen.dataset), torch.device("cpu"), tmp_path / "run")
    kept = json.loads((run.folder / "metrics.json").read_text())
    with sqlite3.connect(database) as rows:
        auc = rows.execute("select value from metrics where key = 'AUC' order by step").fetchall()
        best = rows.execute("select value from metrics where key = 'best_AUC'").fetchall()
        params = dict(rows.execute("select key, value from params").fetchall())
        names = [name for (name,) in rows.execute("select name from experiments")]
    assert [value for (value,) in auc] == [row["AUC"] for row in kept["history"]]
    assert len(auc) == 2
    assert best == [(kept["best"]["AUC"],)]
    assert (params["model"], params["epochs"]) == ("DeepFM", "2")
    assert "tossctr_toy" in names


def test_an_unreachable_mlflow_server_only_logs_a_warning(experiment, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    uri = f"sqlite:///{tmp_path}/file/runs.db"
    log_run(uri, experiment(uri), {"best": {"AUC": 0.5}, "history": [{"AUC": 0.5}]})
    assert f"not logged to MLflow at {uri}" in capsys.readouterr().err


def test_without_mlflow_the_key_is_refused_before_training(experiment, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        check_model(experiment("sqlite:///runs.db"))


def test_an_unresponsive_server_times_out_and_its_password_is_not_printed(monkeypatch, capsys):
    for variable in mlflow_log._PATIENCE:
        monkeypatch.delenv(variable, raising=False)  # and is as before afterwards
    patience = {**mlflow_log._PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    monkeypatch.setattr(
        mlflow_log, "_PATIENCE", {**patience, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://eve:geheim@127.0.0.1:{silent.getsockname()[1]}"
        chosen = load_experiment(CONFIGS, "DeepFM_toy", [f"mlflow_uri={uri}"])
        log_run(uri, chosen, {"best": {"AUC": 0.5}, "history": []})
    said = capsys.readouterr().err
    assert "not logged to MLflow at http://eve:***@127.0.0.1" in said
    assert "geheim" not in said
