"""Losses for rare clicks: optimum, formula, and pairs across micro-batches."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy.special import logit
from torch import nn

from tossctr.config.schema import ModelConfig, TrainingConfig
from tossctr.data.features import FeatureMap, Field
from tossctr.data.loader import BatchRows, batches
from tossctr.data.rows import EncodedRows
from tossctr.models.base import CTRModel
from tossctr.training.losses import Loss
from tossctr.training.module import CTRModule

FEATURES = FeatureMap(dataset_id="d", label="y", fields=(Field(name="x", type="numeric"),))


class Linear(CTRModel):
    Config = ModelConfig

    def __init__(self):
        super().__init__(FEATURES, ModelConfig())
        self.map = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch):
        return self.map(self.dropout(batch.numeric)).squeeze(1)


def rows_of(n=256, rate=0.2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 1)).astype(np.float32)
    label = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0] - logit(rate)))).astype(np.float32)
    return EncodedRows(FEATURES, np.empty((n, 0), np.uint8), x, label=label)


def loss_of(name, **keys):
    return Loss(TrainingConfig(loss=name, **keys))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("binary_crossentropy", {}),
        ("weighted_bce", {"positive_weight": 25.0}),
        ("pairwise", {}),
        ("focal", {"focal_gamma": 0.0}),
    ],
)
def test_the_optimal_constant_is_the_log_odds(name, keys):
    label = torch.zeros(1000, dtype=torch.float64)
    label[:30] = 1
    z = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    loss = loss_of(name, **keys)
    optimizer = torch.optim.LBFGS([z], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss.row_loss(z.expand(1000), label) / 1000
        if loss.pairs:
            value = value + loss.pair_loss(z.expand(1000), label)
        value.backward()
        return value

    optimizer.step(closure)
    assert z.item() == pytest.approx(logit(0.03), abs=1e-3)


def test_a_weighted_click_equals_repeated_rows():
    z, label = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    loss = loss_of("weighted_bce", positive_weight=3.0)
    shifted = z + np.log(3)
    expected = -3 * torch.log(torch.sigmoid(shifted[0])) - torch.log(1 - torch.sigmoid(shifted[1]))
    assert loss.row_loss(z, label).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_matches_its_formula():
    z, label = torch.tensor([0.3, -2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    own = torch.where(label > 0.5, torch.sigmoid(z), 1 - torch.sigmoid(z))
    expected = (-((1 - own) ** 1.5) * torch.log(own)).sum()
    found = loss_of("focal", focal_gamma=1.5).row_loss(z, label)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_pair_loss_covers_every_click_and_non_click():
    z, label = torch.tensor([0.3, -2.0, 4.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    pairs = [(p, n) for p in (0, 3) for n in (1, 2)]
    expected = np.mean([np.log1p(np.exp(z[n] - z[p])) for p, n in pairs])
    loss = loss_of("pairwise", pairwise_weight=0.5)
    assert loss.pair_loss(z, label).item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert loss.pair_loss(z, torch.zeros(4)).item() == 0


def trained(name, micro, dropout=0.5, **keys):
    torch.manual_seed(0)
    model = Linear()
    model.dropout.p = dropout
    config = TrainingConfig(
        loss=name, micro_batch_events=micro, optimizer="sgd", learning_rate=0.5, batch_size=128,
        monitor="AUC", **keys,
    )  # fmt: skip
    rows = rows_of()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    torch.manual_seed(1)
    trainer.fit(CTRModule(model, config), batches(rows, BatchRows(256, 128, shuffle=True)))
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_pairs_span_micro_batches():
    whole = trained("pairwise", 10**6, dropout=0.0)
    torch.testing.assert_close(trained("pairwise", 1, dropout=0.0), whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(trained("pairwise", 1, dropout=0.0, pairwise_weight=0.0), whole)


def test_both_passes_of_the_pairwise_loss_have_the_same_dropout():
    # Without pairs' weight only the second pass counts: it draws what a single pass draws.
    plain = trained("binary_crossentropy", 16)
    torch.testing.assert_close(trained("pairwise", 16, pairwise_weight=0.0), plain)
