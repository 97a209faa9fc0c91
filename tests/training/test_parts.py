"""Which parts are executed at once, within an artificial limit of memory, on the CPU."""

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
from tossctr.models.layers.transformer import execute
from tossctr.runs.train import train
from tossctr.training.parts import SMALLEST, SPARE, fitting_parts

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DEEP = ["max_len=200", "stacked_transformer_layers=4", "batch_size=128", "net_dropout=0"]
SPLIT = ["valid_split.method=stratified", "valid_split.fraction=0.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
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


def parts_of(load, memory, *keys):
    experiment, _, rows = load(*keys)
    return fitting_parts(experiment, rows, CPU, memory)


def bytes_per_event(parts):
    return parts.activations / min(parts.micro_batch_events, parts.step_events)


@pytest.fixture(scope="module")
def ample(load):
    return parts_of(load, 1e12, "gradient_checkpointing=off")


@pytest.fixture(scope="module")
def tight(ample):
    """Bytes in which the smallest part fits only if the blocks are run again."""
    return (ample.fixed + 0.8 * SMALLEST * bytes_per_event(ample)) / SPARE


@pytest.mark.parametrize(
    ("written", "read"),
    [("on", "on"), ("off", "off"), ("auto", "auto"), ("true", "on"), ("'off'", "off")],
)
def test_on_and_off_are_words_however_yaml_reads_them(load, written, read):
    experiment, _, _ = load(f"gradient_checkpointing={written}")
    assert experiment.training.gradient_checkpointing == read


def test_other_words_are_refused(load):
    with pytest.raises(UserError, match=r"gradient_checkpointing must be one of.*auto.*maybe"):
        load("gradient_checkpointing=maybe")


def test_ample_memory_takes_large_parts_and_runs_nothing_again(load, ample):
    auto = parts_of(load, 1e12)
    assert not auto.gradient_checkpointing
    assert auto.micro_batch_events > 8192
    assert auto == ample


def test_parts_are_as_large_as_fit(load, ample):
    memory = (ample.fixed + 3_000 * bytes_per_event(ample)) / SPARE
    parts = parts_of(load, memory)
    assert (parts.micro_batch_events, parts.gradient_checkpointing) == (2048, False)
    assert parts.micro_batches > ample.micro_batches
    assert parts.process + parts.fixed + parts.activations <= memory


def test_blocks_are_run_again_only_where_nothing_else_fits(load, tight):
    auto = parts_of(load, tight)
    assert auto.gradient_checkpointing
    assert auto.fixed + auto.activations <= SPARE * tight
    with pytest.raises(UserError, match="events need"):
        parts_of(load, tight, "gradient_checkpointing=off")


def test_given_parts_are_not_exceeded(load):
    assert parts_of(load, 1e12, "micro_batch_events=3000").micro_batch_events == 3000


def test_too_little_memory_is_said(load):
    with pytest.raises(UserError, match="left beside the model"):
        parts_of(load, 1e5)


def test_gradients_are_those_of_the_model_as_it_is(load):
    experiment, _, rows = load("net_dropout=0.1")
    batch = RowsDataset(rows)[np.arange(20)]
    torch.manual_seed(1)
    model = build_model("FESeq", rows.features, experiment.hyperparameters)
    gradients = []
    for checkpointing in (False, True):
        execute(model, checkpointing=checkpointing)
        model.zero_grad()
        torch.manual_seed(2)
        binary_cross_entropy_with_logits(model(batch), batch.label).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_training_within_a_limit_is_the_training_without(load, tight, folder, capsys):
    experiment, data, rows = load("optimizer=sgd")  # Adam makes much of rounding
    free = train(experiment, data, CPU, folder / "free")
    assert "in parts of at most 8,192" in capsys.readouterr().err
    limited = train(experiment, data, CPU, folder / "limited", memory=tight)
    said = capsys.readouterr().err
    parts = fitting_parts(experiment, rows, CPU, tight)
    assert parts.micro_batches > 5
    assert f"batches of 128 rows: {parts}" in said
    torch.testing.assert_close(
        limited.model.state_dict(), free.model.state_dict(), rtol=0, atol=1e-5
    )


def test_full_length_trainings_fit_14_gb_planned_and_counted():
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
