"""FESeq against recorded runs of the authors' implementation, and the comparison itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fuxictr_weights import load_public, name_map, to_public
from recordings import (
    GRADIENT_BOUND,
    OUTPUT_BOUND,
    compare,
    gradient_errors,
    read_recording,
)
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.errors import UserError
from tossctr.models.feseq import FESeq

PROJECT = Path(__file__).parents[2]
RECORDINGS = sorted((PROJECT.parent / "shared" / "parity").glob("*.npz"))
needs_recordings = pytest.mark.skipif(
    not RECORDINGS, reason="no recorded runs: there is no folder 'shared/parity' beside the project"
)


@needs_recordings
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.stem)
def test_recorded_runs_are_reproduced(path):
    errors = compare(read_recording(path))
    assert errors["padded"].gradient is not None
    assert (errors["ragged"].probability is None) == path.stem.startswith("concat")
    assert (errors["ragged"].gradient is None) == path.stem.startswith(
        ("concat", "final", "weighted_din")
    )
    for found in errors.values():
        assert (found.probability or 0) <= OUTPUT_BOUND
        assert (found.loss or 0) <= OUTPUT_BOUND
        assert (found.gradient or 0) <= GRADIENT_BOUND


@needs_recordings
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.stem)
def test_float32_is_within_the_bounds_too(path):
    recording = read_recording(path)
    model = FESeq(recording.features, recording.config)
    load_public(model, recording.weights)
    batch, real = recording.padded, recording.real_history
    before = {n: b.clone() for n, b in model.named_buffers()}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    probability = model.eval()(batch, real).sigmoid()
    assert (probability - recording.probability).abs().max() <= OUTPUT_BOUND
    loss = binary_cross_entropy_with_logits(model.train()(batch, real), batch.label)
    loss.backward()
    assert abs(float(loss.detach()) - recording.loss) <= OUTPUT_BOUND
    ours = to_public(model, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert max(gradient_errors(ours, recording.gradients).values()) <= GRADIENT_BOUND
    for name, buffer in model.named_buffers():  # the batch statistics after that one pass
        torch.testing.assert_close(buffer, before[name], atol=1e-6, rtol=1e-5)


FEATURES = {
    "gender": {"type": "categorical", "padding_idx": 0, "vocab_size": 4},
    "now": {"type": "categorical", "padding_idx": 0, "vocab_size": 2},
    "item": {"type": "categorical", "padding_idx": 0, "vocab_size": 9},
    "price": {"type": "numeric"},
    "n1": {"type": "numeric"},
    "items": {
        "type": "sequence",
        "dtype": "str",
        "padding_idx": 0,
        "vocab_size": 9,
        "max_len": 4,
        "share_embedding": "item",
    },
    "prices": {
        "type": "sequence",
        "dtype": "float",
        "padding_idx": -1,
        "max_len": 4,
        "share_embedding": "price",
    },
    "then": {"type": "sequence", "dtype": "str", "padding_idx": 0, "vocab_size": 2, "max_len": 4},
}
OPTIONS = {
    "embedding_dim": 4,
    "target_field": ["item", "price"],
    "sequence_field": ["items", "prices"],
    "default_field": ["gender"],
    "target_item_field": ["item", "price"],
    "time_keys": ["now", "then"],
    "use_time_emb": True,
    "use_position_emb": False,
    "num_time_embeddings": 9,
    "time_log_base": 2,
    "interaction_layer_name": "CrossNet_Mix",
    "use_seq_feature_interaction": True,
    "seq_feature_interaction_layers": 1,
    "seq_pooling_type": "weighted_sum",
    "use_causal_mask": True,
    "num_heads": 2,
    "dnn_hidden_units": [5],
    "batch_norm": True,
    "max_len": 4,
    "features": FEATURES,
}


@pytest.fixture
def recorded(tmp_path):
    """A recording of our own padded execution, with several sequences and shared tables."""
    draw = np.random.default_rng(0)
    real = np.arange(4) >= 4 - np.array([0, 4, 1, 3, 2])[:, None]
    arrays = {
        "config": np.array(json.dumps(OPTIONS)),
        "input/gender": draw.integers(1, 4, 5).astype(float),
        "input/now": draw.integers(100, 200, 5).astype(float),
        "input/item": draw.integers(1, 9, 5).astype(float),
        "input/price": draw.random(5),
        "input/n1": draw.random(5),
        "input/items": np.where(real, draw.integers(1, 9, (5, 4)), 0).astype(float),
        "input/prices": np.where(real, draw.random((5, 4)), -1),
        "input/then": np.where(real, draw.integers(1, 100, (5, 4)), 0).astype(float),
        "input/clicked": np.array([0.0, 1, 1, 0, 1]),
        "output/probability": np.zeros(5, np.float32),
        "output/loss": np.array(0.0),
    }
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    blank = read_recording(path)
    torch.manual_seed(0)
    model = FESeq(blank.features, blank.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
        for table in (m for m in model.modules() if isinstance(m, nn.Embedding)):
            table.weight[table.padding_idx].zero_()
    probability = model.eval()(blank.padded, blank.real_history).sigmoid()
    loss = binary_cross_entropy_with_logits(
        model.train()(blank.padded, blank.real_history), blank.padded.label
    )
    loss.backward()
    arrays["output/probability"] = probability.detach().numpy()
    arrays["output/loss"] = loss.detach().numpy()
    for name, value in to_public(model, model.state_dict()).items():
        columns = (
            value[:, None]
            if name.endswith(("price.weight", "prices.weight", "n1.weight"))
            else value
        )
        arrays[f"weight/{name}"] = columns.numpy()
    for name, value in to_public(model, {n: p.grad for n, p in model.named_parameters()}).items():
        if name != "embedding_layer.embedding_layers.items.weight":  # shared: named once
            arrays[f"grad/{name}"] = value.numpy()
    np.savez(path, **arrays)
    return path, arrays


def test_a_recording_of_our_model_is_reproduced_by_both_executions(recorded):
    path, _ = recorded
    recording = read_recording(path)
    assert recording.features["items"].share_embedding == "item"
    assert recording.features["prices"].type == "numeric_sequence"
    assert recording.ragged.sequences["prices"].lengths.tolist() == [0, 4, 1, 3, 2]
    assert recording.ragged.sequences["prices"].values.min() >= 0
    for errors in compare(recording).values():
        assert errors.probability <= 1e-6
        assert errors.loss <= 1e-6
        assert errors.gradient <= 1e-5


@pytest.mark.parametrize(
    ("spoilt", "figure", "bound"),
    [
        ("output/probability", "probability", OUTPUT_BOUND),
        ("output/loss", "loss", OUTPUT_BOUND),
        ("grad/dnn.mlp.0.weight", "gradient", GRADIENT_BOUND),
        ("weight/dnn.mlp.3.bias", "probability", OUTPUT_BOUND),
    ],
)
def test_the_comparison_finds_each_changed_array(recorded, spoilt, figure, bound):
    path, arrays = recorded
    np.savez(path, **{**arrays, spoilt: arrays[spoilt] + np.float32(0.01)})
    for errors in compare(read_recording(path)).values():
        assert getattr(errors, figure) > bound


def test_the_command_fails_above_a_bound(recorded):
    path, arrays = recorded
    np.savez(path, **{**arrays, "output/loss": np.array(9.0)})
    run = subprocess.run(
        [sys.executable, "benchmarks/parity.py", str(path), "--json", "--quick"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures["files"] == 1
    assert figures["worst_output"] > 1
    assert figures["worst_gradient"] < GRADIENT_BOUND


def test_gradients_that_are_rounding_on_both_sides_count_as_equal():
    large = torch.tensor([1.0, -3.0])
    noise, other = torch.tensor([1e-9]), torch.tensor([-2e-9])
    assert gradient_errors({"a": large, "b": other}, {"a": large, "b": noise}) == {"a": 0, "b": 0}
    wrong = gradient_errors({"a": large, "b": torch.tensor([0.1])}, {"a": large, "b": noise})
    assert wrong["b"] > 1
    assert gradient_errors({}, {"a": large})["a"] == float("inf")


def test_map_names_every_weight(recorded):
    recording = read_recording(recorded[0])
    model = FESeq(recording.features, recording.config)
    mapped = {place.name for place in name_map(model).values()}
    assert mapped == set(model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("dnn.mlp.0.bias"), "dnn.mlp.0.bias: is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra: is a weight that this model does not"),
        (lambda w: w.update({"dnn.mlp.0.bias": torch.zeros(3)}), "has shape"),
        (
            lambda w: w["embedding_layer.embedding_layers.items.weight"].add_(1),
            "shares its table",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(recorded, change, message):
    recording = read_recording(recorded[0])
    change(recording.weights)
    with pytest.raises(UserError, match=message):
        load_public(FESeq(recording.features, recording.config), recording.weights)


def test_a_file_that_is_no_recording(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match=r"x\.npz"):
        read_recording(path)
    np.savez(path, a=np.zeros(1))
    with pytest.raises(UserError, match=r"x\.npz.*config"):
        read_recording(path)
    np.savez(path, config=np.array([{}], dtype=object))  # a pickle: never loaded
    with pytest.raises(UserError, match=r"x\.npz"):
        read_recording(path)
