"""Embeddings of numbers against a plain loop, and in each model."""

import math
from pathlib import Path

import pytest
import torch

from tossctr.data.batch import Batch, Ragged
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.features import FeatureMap, Field
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.models import build_model
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.numeric import BINS, Periodic, PiecewiseLinear

CONFIGS = Path(__file__).parents[3] / "configs"
X = torch.tensor([[0.0, 0.3], [0.51, 1.0], [-0.5, 2.0]])


def come_through(x, t):
    """Equation 1 of the paper, for bins of width 1 / BINS."""
    low, high = t / BINS, (t + 1) / BINS
    if x < low and t > 0:
        return 0.0
    if x >= high and t < BINS - 1:
        return 1.0
    return (x - low) / (high - low)


def test_piecewise_matches_the_paper():
    module = PiecewiseLinear(3, 5)
    got = module(X, [2, 0])
    for b in range(3):
        for m, field in enumerate([2, 0]):
            bins = torch.tensor([come_through(float(X[b, m]), t) for t in range(BINS)])
            expected = bins @ module.linear.weight[field] + module.linear.bias[field]
            torch.testing.assert_close(got[b, m], expected, rtol=1e-4, atol=1e-4)


def test_periodic_matches_the_paper():
    module = Periodic(3, 5)
    got = module(X, [2, 0])
    for b in range(3):
        for m, field in enumerate([2, 0]):
            v = 2 * math.pi * X[b, m] * module.frequency[field]
            waves = torch.cat([v.sin(), v.cos()])
            expected = waves @ module.linear.weight[field] + module.linear.bias[field]
            torch.testing.assert_close(got[b, m], expected.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numeric", ["linear", "piecewise", "periodic"])
def test_shared_fields_and_sequences_have_one_embedding(numeric):
    features = FeatureMap(
        dataset_id="d",
        label="y",
        fields=(
            Field(name="a", type="numeric"),
            Field(name="b", type="numeric", embedding_dim=3),
            Field(name="c", type="numeric"),
            Field(name="as", type="numeric_sequence", share_embedding="a"),
        ),
    )
    numbers = torch.tensor([[0.1, 0.2, 0.7], [0.4, 0.5, 0.1]])
    events = Ragged(torch.tensor([0.1, 0.4]), torch.tensor([0, 1, 2]), 1)
    batch = Batch(torch.empty(2, 0, dtype=torch.int64), numbers, {"as": events})
    e = FieldEmbedding(features, ["a", "b", "c", "as"], 4, numeric=numeric)
    rows = e.rows(batch, ["c", "b", "a"])
    assert rows.shape == (2, 4 + 3 + 4)
    torch.testing.assert_close(e.events(batch, ["as"]), rows[:, 7:])
    assert not torch.equal(rows[:, :4], rows[:, 7:])
    if numeric == "linear":
        assert e.parameter_of()["a"] == ("vectors.4", 0)
    else:
        with pytest.raises(UserError, match="numeric_embedding"):
            e.parameter_of()


@pytest.mark.parametrize("numeric", ["piecewise", "periodic"])
@pytest.mark.parametrize(
    "expid", ["FESeq", "BST", "DIN", "SASRec", "DeepFM", "DCNv2", "DCNv2Seq", "AutoInt"]
)
def test_every_model_accepts_numeric_embeddings(expid, numeric):
    plain, other = (
        load_experiment(CONFIGS, f"{expid}_toy", [f"numeric_embedding={kind}"])
        for kind in ("linear", numeric)
    )
    dataset = plain.dataset
    features = FeatureMap(
        dataset_id="d",
        label="clicked",
        fields=tuple(c.field(30 if c.has_vocabulary else None) for c in field_encodings(dataset)),
    ).with_lengths(dataset, 4)
    before, model = (build_model(e.model, features, e.hyperparameters, seed=1)
                     for e in (plain, other))  # fmt: skip
    count, numbers = (sum(p.numel() for p in m.parameters()) for m in (before, model))
    assert numbers > count
    values = Ragged(torch.tensor([1, 2, 3]), torch.tensor([0, 2, 3]), 2)
    numeric_columns = torch.rand(2, len(features.names("numeric"))).requires_grad_()
    batch = Batch(torch.ones(2, 5, dtype=torch.int64), numeric_columns, {"seq": values})
    model(batch).sum().backward()
    curves = [p for n, p in model.named_parameters() if ".curves." in n and "frequency" not in n]
    assert curves
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in curves)
