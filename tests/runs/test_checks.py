"""Errors that can be detected before training are reported before it, in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tossctr.config.schema import TrainingConfig
from tossctr.data.features import FeatureMap, Field
from tossctr.data.prepare import prepare
from tossctr.data.rows import EncodedRows
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.runs.checks import check_model, check_monitor
from tossctr.runs.train import train
from tossctr.training.micro_batches import WHOLE_BATCH, fit_micro_batches

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("checks")
    synthesize(root, 300, 1, seed=5)
    return root


def experiment(root, expid, *keys):
    where = [f"data_root={root}", f"train_data={root / 'train.parquet'}", "epochs=1"]
    split = ["valid_split.method=stratified", "valid_split.fraction=0.4"]
    own = ["batch_size=64", "num_workers=0", "max_len=20", "net_dropout=0", "monitor=AUC"]
    return load_experiment(CONFIGS, expid, [*where, *split, *own, *keys])


def valid_rows(label, user):
    features = FeatureMap(dataset_id="d", label="y", fields=(Field(name="user", type="meta"),))
    return EncodedRows(
        features=features,
        categorical=np.empty((len(label), 0), np.uint8),
        numeric=np.empty((len(label), 0), np.float32),
        sequences={},
        meta=np.array(user, np.int64)[:, None],
        label=np.array(label, np.float32),
    )


@pytest.mark.parametrize("name", ["gAUC", "avgAUC"])
def test_a_monitor_undefined_in_every_group_is_refused(name):
    config = TrainingConfig(monitor=name, group_id="user")
    with pytest.raises(UserError, match=rf"{name} is not defined on the 4 .*2 of them.*by user"):
        check_monitor(config, valid_rows([1, 1, 0, 0], [2, 2, 3, 3]))
    check_monitor(config, valid_rows([1, 0, 0, 0], [2, 2, 3, 3]))


@pytest.mark.parametrize("name", ["AUC", "AP", "WLL", "competition_score"])
def test_a_monitor_undefined_for_one_class_is_refused(name):
    with pytest.raises(UserError, match=rf"{name} is not defined"):
        check_monitor(TrainingConfig(monitor=name), valid_rows([0, 0], [2, 3]))
    check_monitor(TrainingConfig(monitor="logloss"), valid_rows([0, 0], [2, 3]))


NORMED = [
    ("DeepFM_toy", "batch_norm=true"),
    ("DCNv2_toy", "batch_norm=true"),
    ("AutoInt_toy", "batch_norm=true"),
    ("FESeq_toy", "interaction_layer_name=final"),
    ("BST_toy", "dnn_activations=dice"),
    ("DIN_toy", "batch_norm=false"),  # dice is its attention's default
]


@pytest.mark.parametrize(("expid", "key"), NORMED)
def test_micro_batches_and_processes_are_refused_with_batch_statistics(root, expid, key):
    check_model(experiment(root, expid, key))
    with pytest.raises(UserError, match="micro_batch_events: batch normalisation needs the whole"):
        check_model(experiment(root, expid, key, "micro_batch_events=100"))
    with pytest.raises(UserError, match="--workers: batch normalisation needs the whole batch"):
        check_model(experiment(root, expid, key), 2)


def test_din_without_dice_allows_micro_batches_and_processes(root):
    key = "attention_hidden_activations=prelu"
    check_model(experiment(root, "DIN_toy", key, "micro_batch_events=100"), 2)


def test_a_model_with_batch_statistics_is_executed_in_one_micro_batch(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tossctr.training.micro_batches.default_micro_batch_events", lambda device: 30
    )
    sizes = []

    def forward(model, batch, wrapped):
        sizes.append(len(batch))
        return wrapped(model, batch)

    from tossctr.models.deepfm import DeepFM

    wrapped = DeepFM.forward
    monkeypatch.setattr(DeepFM, "forward", lambda m, b: forward(m, b, wrapped))
    for norm in ("true", "false"):
        chosen = experiment(root, "DeepFM_toy", f"batch_norm={norm}")
        data = prepare(chosen.dataset)
        sizes.clear()
        train(chosen, data, CPU, tmp_path / norm)
        assert (max(sizes) == 64) == (norm == "true")
    rows = replace(data.train, features=data.encoder.features)
    chosen = experiment(root, "DeepFM_toy", "batch_norm=true")
    fit = fit_micro_batches(chosen, rows, CPU, 1e12)
    assert fit.micro_batch_events == WHOLE_BATCH
    assert "in one micro-batch" in str(fit)
    with pytest.raises(UserError, match="lower batch_size"):
        fit_micro_batches(chosen, rows, CPU, fit.fixed + 0.5 * fit.activations)


@pytest.mark.parametrize("expid", ["FESeq_toy", "SASRec_toy", "BST_toy"])
def test_a_model_larger_than_the_machine_is_refused(root, expid):
    with pytest.raises(UserError, match=r"need [\d,]+ GB, and this machine has .*lower") as error:
        check_model(experiment(root, expid, "max_len=2147483647", "embedding_dim=1024"))
    assert "2147483648" in error.value.line() or "2147483649" in error.value.line()


@pytest.mark.parametrize("key", ["embedding_regularizer", "net_regularizer"])
def test_a_regulariser_is_read_before_the_data(root, key):
    with pytest.raises(UserError, match=f"{key} is not a regularizer"):
        check_model(experiment(root, "FESeq_toy", f"{key}=l3(1)"))
