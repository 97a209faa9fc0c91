"""Micro-batches that fit into an artificial limit of memory, on the CPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.data.loader import RowsDataset
from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.models import build_model
from tossctr.models.layers.transformer import set_execution
from tossctr.runs.train import train
from tossctr.training.micro_batches import SMALLEST, USABLE, fit_micro_batches

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DEEP = ["max_len=200", "stacked_transformer_layers=4", "batch_size=128", "net_dropout=0"]
SPLIT = ["valid_split.method=stratified", "valid_split.fraction=0.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro_batches")
    synthesize(folder, 300, 10, seed=5)
    return folder


@pytest.fixture(scope="module")
def load(folder):
    where = [f"train_data={folder / 'train.parquet'}", f"data_root={folder}", "epochs=1", *SPLIT]
    data = prepare(load_experiment(ROOT / "configs", "FESeq_toy", where).dataset)

    def loaded(*keys):
        experiment = load_experiment(ROOT / "configs", "FESeq_toy", [*where, *DEEP, *keys])
        max_len = experiment.training.max_len
        features = data.encoder.features.with_lengths(experiment.dataset, max_len)
        return experiment, data, replace(data.train, features=features)

    return loaded


def fit(load, memory, *keys):
    experiment, _, rows = load(*keys)
    return fit_micro_batches(experiment, rows, CPU, memory)


def bytes_per_event(found):
    return found.activations / min(found.micro_batch_events, found.events_per_step)


@pytest.fixture(scope="module")
def ample(load):
    return fit(load, 1e12, "gradient_checkpointing=off")


@pytest.fixture(scope="module")
def tight(ample):
    """Bytes in which the smallest micro-batch fits only with gradient checkpointing."""
    return (ample.fixed + 0.8 * SMALLEST * bytes_per_event(ample)) / USABLE


@pytest.mark.parametrize(
    ("written", "read"),
    [("on", "on"), ("off", "off"), ("auto", "auto"), ("true", "on"), ("'off'", "off")],
)
def test_gradient_checkpointing_accepts_yaml_booleans(load, written, read):
    experiment, _, _ = load(f"gradient_checkpointing={written}")
    assert experiment.training.gradient_checkpointing == read


def test_other_values_are_refused(load):
    with pytest.raises(UserError, match=r"gradient_checkpointing must be one of.*auto.*maybe"):
        load("gradient_checkpointing=maybe")


def test_ample_memory_takes_large_micro_batches_without_checkpointing(load, ample):
    auto = fit(load, 1e12)
    assert not auto.gradient_checkpointing
    assert auto.micro_batch_events > 8192
    assert auto == ample


def test_micro_batches_are_as_large_as_fit(load, ample):
    memory = (ample.fixed + 3_000 * bytes_per_event(ample)) / USABLE
    found = fit(load, memory)
    assert (found.micro_batch_events, found.gradient_checkpointing) == (2048, False)
    assert found.per_step > ample.per_step
    assert found.process + found.fixed + found.activations <= memory


def test_auto_checkpoints_only_if_nothing_else_fits(load, tight):
    auto = fit(load, tight)
    assert auto.gradient_checkpointing
    assert auto.fixed + auto.activations <= USABLE * tight
    with pytest.raises(UserError, match="events need"):
        fit(load, tight, "gradient_checkpointing=off")


def test_configured_size_is_not_exceeded(load):
    assert fit(load, 1e12, "micro_batch_events=3000").micro_batch_events == 3000


def test_too_little_memory_is_refused(load):
    with pytest.raises(UserError, match="the model leaves only"):
        fit(load, 1e5)


def test_checkpointing_does_not_change_gradients(load):
    experiment, _, rows = load("net_dropout=0.1")
    batch = RowsDataset(rows)[np.arange(20)]
    torch.manual_seed(1)
    model = build_model("FESeq", rows.features, experiment.hyperparameters)
    gradients = []
    for checkpointing in (False, True):
        set_execution(model, checkpointing=checkpointing)
        model.zero_grad()
        torch.manual_seed(2)
        binary_cross_entropy_with_logits(model(batch), batch.label).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_memory_limit_does_not_change_the_training(load, tight, folder, capsys):
    experiment, data, rows = load("optimizer=sgd")  # Adam amplifies rounding
    free = train(experiment, data, CPU, folder / "free")
    assert "micro-batches of at most 8,192 events" in capsys.readouterr().err
    limited = train(experiment, data, CPU, folder / "limited", memory=tight)
    shown = capsys.readouterr().err
    found = fit_micro_batches(experiment, rows, CPU, tight)
    assert found.per_step > 5
    assert f"batches of 128 rows: {found}" in shown
    torch.testing.assert_close(
        limited.model.module.state_dict(), free.model.module.state_dict(), rtol=0, atol=1e-5
    )


def test_full_length_trainings_fit_14_gb():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "memory.py", "--quick", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    for max_len in (500, 2000):
        counted, planned = (figures[f"full_{max_len}{kind}_gb"] for kind in ("", "_planned"))
        assert 4 < counted < 14
        assert abs(planned / counted - 1) < 0.1
