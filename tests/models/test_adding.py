"""A pooling and a model added in one file, as CONTRIBUTING.md describes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tossctr
from tossctr.config.schema import ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models import MODELS
from tossctr.models.base import CTRModel
from tossctr.models.layers.packed import Events
from tossctr.models.layers.pooling import POOLINGS, Pooling
from tossctr.models.layers.tabular import TabularEmbedding

DATASETS = """
toy:
    train_data: train.csv
    valid_split: {method: random, fraction: 0.25}
    label_col: {name: clicked, dtype: float}
    feature_cols:
        - {name: item, type: categorical, dtype: str}
        - {name: items, type: sequence, dtype: str, splitter: " ", max_len: 3}
"""
EXPERIMENTS = """
Base: {dataset_id: toy, epochs: 1, batch_size: 64, num_workers: 0, embedding_dim: 4}
SASRec_max:
    model: SASRec
    target_field: item
    sequence_field: items
    seq_pooling_type: max
    dnn_hidden_units: [4]
LogisticRegression_toy:
    model: LogisticRegression
    initial_bias: -0.5
"""


class MaxPooling(Pooling):
    """The largest value of each dimension."""

    def forward(self, x: Tensor, events: Events) -> Tensor:
        return torch.segment_reduce(x, "max", offsets=events.offsets)


class LogisticRegressionConfig(ModelConfig):
    initial_bias: float = 0.0


class LogisticRegression(CTRModel):
    """One weight for each id."""

    Config = LogisticRegressionConfig

    def __init__(self, features: FeatureMap, config: LogisticRegressionConfig) -> None:
        super().__init__(features, config)
        self.weights = TabularEmbedding(features, 1)
        self.bias = nn.Parameter(torch.tensor(config.initial_bias))
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        return self.weights(batch).sum(1) + self.bias


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    rows = ["clicked,item,items"]
    rows += [f"{n % 2},{'abc'[n % 3]},{' '.join('abc'[: n % 4])}" for n in range(80)]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "dataset_config.yaml").write_text(DATASETS)
    (folder / "model_config.yaml").write_text(EXPERIMENTS)
    return folder


def test_a_pooling_is_a_class_and_an_entry_of_poolings(configs, monkeypatch):
    with pytest.raises(
        tossctr.UserError,
        match=r"seq_pooling_type must be one of: mean, sum, target or concat .found 'max'",
    ):
        tossctr.load_experiment(configs, "SASRec_max")
    monkeypatch.setitem(POOLINGS, "max", MaxPooling)
    run = tossctr.train(tossctr.load_experiment(configs, "SASRec_max"), gpu=-1)
    assert 0 <= run.metrics["best"]["AUC"] <= 1


def test_a_model_is_a_class_and_an_entry_of_models(configs, monkeypatch):
    with pytest.raises(tossctr.UserError, match="model is not a known model"):
        tossctr.load_experiment(configs, "LogisticRegression_toy")
    monkeypatch.setitem(MODELS, "LogisticRegression", LogisticRegression)
    run = tossctr.train(tossctr.load_experiment(configs, "LogisticRegression_toy"), gpu=-1)
    assert run.metrics["parameters"] == sum(p.numel() for p in run.model.module.parameters())
    assert run.model.module.bias.item() != -0.5  # trained
