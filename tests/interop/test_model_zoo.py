"""Experiments with the keys that FuxiCTR's model zoo gives the models that we have."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.csv
import pytest
import torch
import yaml
from scipy.special import expit

from tossctr.data.prepare import prepare
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.inference.predict import predict_rows
from tossctr.metrics.registry import evaluate
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.pipeline.submit import submit
from tossctr.runs.checks import check_model
from tossctr.runs.train import train

# The keys of FuxiCTR 2's Base, and those that all experiments have.
BASE = {
    "model_root": "./checkpoints/",
    "num_workers": 3,
    "verbose": 1,
    "early_stop_patience": 2,
    "pickle_feature_encoder": True,
    "save_best_only": True,
    "eval_steps": None,
    "debug_mode": False,
    "group_id": None,
    "use_features": None,
    "feature_specs": None,
    "feature_config": None,
}
SHARED = {
    "dataset_id": "tiny_seq",
    "loss": "binary_crossentropy",
    "metrics": ["logloss", "AUC"],
    "task": "binary_classification",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "embedding_regularizer": 0,
    "net_regularizer": 1e-8,
    "batch_size": 128,
    "embedding_dim": 4,
    "net_dropout": 0,
    "batch_norm": False,
    "epochs": 1,
    "shuffle": True,
    "seed": 2019,
    "monitor": "AUC",
    "monitor_mode": "max",
}
ZOO: dict[str, dict[str, Any]] = {
    "BST": {
        "dnn_hidden_units": [64, 32],
        "dnn_activations": "relu",
        "num_heads": 4,
        "stacked_transformer_layers": 1,
        "attention_dropout": 0,
        "layer_norm": True,
        "use_residual": True,
        "bst_target_field": "item",
        "bst_sequence_field": "clicks",
        "seq_pooling_type": "mean",
        "use_position_emb": True,
        "use_causal_mask": False,
        "monitor": {"AUC": 1, "logloss": -1},
    },
    "DIN": {
        "dnn_hidden_units": [64, 32],
        "dnn_activations": "relu",
        "attention_hidden_units": [64],
        "attention_hidden_activations": "Dice",
        "attention_output_activation": None,
        "attention_dropout": 0,
        "din_target_field": [["item", "shop"]],
        "din_sequence_field": [["clicks", "shops"]],
        "din_use_softmax": False,
    },
    "DeepFM": {"hidden_units": [64, 32], "hidden_activations": "relu"},
    "DCNv2": {
        "model_structure": "parallel",
        "use_low_rank_mixture": False,
        "low_rank": 32,
        "num_experts": 4,
        "stacked_dnn_hidden_units": [64, 32],
        "parallel_dnn_hidden_units": [64, 32],
        "dnn_activations": "relu",
        "num_cross_layers": 3,
    },
    "AutoInt": {
        "dnn_hidden_units": [64, 32],
        "dnn_activations": "relu",
        "attention_layers": 3,
        "num_heads": 2,
        "attention_dim": 8,
        "use_residual": True,
        "layer_norm": False,
        "use_scale": False,
        "use_wide": False,
    },
}
# FuxiCTR 1.0's names of keys that are in Base.
OLD_BASE = {
    "model_root": "./checkpoints/",
    "workers": 3,
    "verbose": 1,
    "patience": 2,
    "pickle_feature_encoder": True,
    "use_hdf5": True,
    "save_best_only": True,
    "every_x_epochs": 1,
    "debug": False,
    "version": "pytorch",
    "partition_block_size": -1,
}
DATASETS = """
tiny_seq:
    data_root: ./data/
    data_format: h5
    train_data: ./data/tiny_seq/train.h5
    valid_data: ./data/tiny_seq/valid.h5
    test_data: ./data/tiny_seq/valid.h5
"""


def spec(kind: str, **more: Any) -> dict[str, Any]:
    return {"source": "", "type": kind, **more}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FuxiCTR project: its configs, and H5 files in its layout with a feature map."""
    root = tmp_path_factory.mktemp("zoo")
    folder = root / "data/tiny_seq"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, rows in (("train", 300), ("valid", 150)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            lengths = rng.integers(0, 6, rows)
            kept = np.arange(5) >= 5 - lengths[:, None]  # padded in front
            file["item"], file["shop"] = rng.integers(1, 20, (2, rows))
            file["clicks"] = np.where(kept, rng.integers(1, 20, (rows, 5)), 0)
            file["shops"] = np.where(kept, rng.integers(1, 20, (rows, 5)), 0)
            file["price"] = rng.normal(size=rows)
            file["user"] = rng.integers(0, 9, rows)
            file["label"] = rng.integers(0, 2, rows).astype(float)
    sequence = {"padding_idx": 0, "max_len": 5, "vocab_size": 20}
    features = {
        "item": spec("categorical", padding_idx=0, vocab_size=20),
        "shop": spec("categorical", padding_idx=0, vocab_size=20),
        "clicks": spec("sequence", share_embedding="item", **sequence),
        "shops": spec("sequence", share_embedding="shop", **sequence),
        "price": spec("numeric"),
        "user": {"type": "meta"},
    }
    content = {
        "dataset_id": "tiny_seq",
        "num_fields": 5,
        "total_features": 41,
        "input_length": 14,
        "labels": ["label"],
        "features": [{name: value} for name, value in features.items()],
    }
    (folder / "feature_map.json").write_text(json.dumps(content))
    experiments = {f"{m}_test": {"model": m, **SHARED, **keys} for m, keys in ZOO.items()}
    (root / "config").mkdir()
    text = yaml.safe_dump({"Base": BASE, **experiments}, sort_keys=False)
    (root / "config/model_config.yaml").write_text(text)
    (root / "config/dataset_config.yaml").write_text(DATASETS)
    return root


@pytest.mark.parametrize("model", ZOO)
def test_an_experiment_of_the_zoo_loads_unchanged(zoo: Path, model: str) -> None:
    experiment = load_experiment(zoo / "config", f"{model}_test")
    assert experiment.model == model
    check_model(experiment)
    options = experiment.hyperparameters.model_dump()
    written = {**SHARED, **ZOO[model]}
    same = {"net_dropout", "batch_norm", "embedding_dim", "num_heads", "num_cross_layers"}
    for key in same & written.keys() & options.keys():
        assert options[key] == written[key], key
    assert experiment.training.model_root == zoo / "checkpoints"
    assert experiment.training.early_stop_patience == 2


def test_it_trains_and_its_grouped_metrics_are_those_of_its_groups(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["group_id=user", "metrics=[gAUC, AUC, 'NDCG(k=2)']", "monitor=gAUC", "num_workers=0"]
    experiment = load_experiment(zoo / "config", "BST_test", chosen)
    data = prepare(experiment.dataset)
    device = torch.device("cpu")
    run = train(experiment, data, device, zoo / "checkpoints/BST_test")
    assert data.valid.label is not None
    logits = predict_rows(run, data.valid, device=device)
    group = data.valid.groups("user")
    names = ["gAUC", "AUC", "NDCG(k=2)"]
    expected = evaluate(data.valid.label, logits, names, group=group)
    best = run.metrics["best"]
    assert {name: best[name] for name in names} == pytest.approx(expected, abs=1e-6)
    assert best["monitor"] == best["gAUC"]
    for data_file in (None, zoo / "data/tiny_seq/valid.h5"):
        again = evaluate_run(run, data_file, device=device)
        assert {name: again[name] for name in names} == pytest.approx(expected, abs=1e-9)
    # FuxiCTR's files have no ids: rows are known by their number.
    output = zoo / "scores.csv"
    submit(run, data=None, sample=None, output=output, device=device, objective="raw")
    scores = pyarrow.csv.read_csv(output)
    assert scores.column_names == ["row", "label"]
    assert scores["row"].to_pylist() == list(range(150))
    np.testing.assert_allclose(scores["label"], expit(logits), atol=1e-9)

    second = load_experiment(zoo / "config", "DeepFM_test", ["verbose=2", "num_workers=0"])
    capsys.readouterr()
    train(second, data, device, zoo / "checkpoints/DeepFM_test")
    assert '"learning_rate": 0.001' in capsys.readouterr().err
    with (zoo / "checkpoints/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["exp_id"] for row in rows] == ["BST_test", "DeepFM_test"]
    assert rows[0]["dataset_id"] == "tiny_seq"
    shown = " - ".join(f"{name}: {best[name]:.6f}" for name in names)
    assert rows[0]["val"] == shown


def test_keys_that_would_do_nothing_are_named_once(zoo, tmp_path, capsys):
    keys = {"save_best_only": False, "debug_mode": True, "debug": True}
    more = {"monitor": "logloss", "monitor_mode": "min"}
    experiment = {"model": "DeepFM", **SHARED, **ZOO["DeepFM"], **keys, **more}
    (tmp_path / "config").mkdir()
    (tmp_path / "data").symlink_to(zoo / "data")
    (tmp_path / "config/dataset_config.yaml").write_text(DATASETS)
    (tmp_path / "config/model_config.yaml").write_text(yaml.safe_dump({"x": experiment}))
    training = load_experiment(tmp_path / "config", "x").training
    said = capsys.readouterr().err
    assert [said.count(f"x.{key} has no effect") for key in keys] == [1, 1, 1]
    assert (training.monitor, training.monitor_mode) == ({"logloss": 1.0}, "min")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metrics": ["gAUC"]}, "is not valid: names gAUC, which needs groups; give group_id"),
        ({"task": "regression"}, "x.task is not supported (found 'regression'); models"),
        ({"monitor": "logloss", "monitor_mode": "max"}, "x.monitor_mode is not valid: contradicts"),
        ({"metrics": ["NDCG(k=0)"]}, "names an unknown metric"),
        ({"group_id": "price"}, "group_id is not a feature of type meta or categorical"),
        ({"use_features": ["item"]}, "use_features is not supported"),
        ({"feature_specs": [{"name": "item"}]}, "feature_specs is not supported"),
        ({"every_x_epochs": 2}, "every_x_epochs is not supported"),
        ({"embedding_dropout": 0.1}, "embedding_dropout is not a known key"),
    ],
)
def test_a_key_without_counterpart_is_named(
    zoo: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    experiment = {"model": "DeepFM", **SHARED, **ZOO["DeepFM"], **changed}
    (tmp_path / "config").mkdir()
    (tmp_path / "data").symlink_to(zoo / "data")
    (tmp_path / "config/dataset_config.yaml").write_text(DATASETS)
    (tmp_path / "config/model_config.yaml").write_text(yaml.safe_dump({"x": experiment}))
    with pytest.raises(UserError) as error:
        load_experiment(tmp_path / "config", "x")
    assert said in error.value.line()


def test_the_base_of_fuxictr_1_loads(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "data").symlink_to(zoo / "data")
    (tmp_path / "config/dataset_config.yaml").write_text(DATASETS)
    content = {"Base": OLD_BASE, "x": {"model": "DeepFM", **SHARED, **ZOO["DeepFM"]}}
    (tmp_path / "config/model_config.yaml").write_text(yaml.safe_dump(content))
    training = load_experiment(tmp_path / "config", "x").training
    assert (training.num_workers, training.early_stop_patience) == (3, 2)
