import pytest
import torch
from torch import nn

from tossctr.errors import UserError
from tossctr.models.layers.mlp import MLP, Dice, Output
from tossctr.models.layers.norm import BatchNorm


def kinds(mlp):
    return [type(layer) for layer in mlp.layers]


def test_order_of_layers():
    mlp = MLP(3, (4, 2), output_width=1, activations="ReLU", dropout=0.1, batch_norm=True)
    hidden = [nn.Linear, BatchNorm, nn.ReLU, nn.Dropout]
    assert kinds(mlp) == [*hidden, *hidden, Output]
    assert mlp(torch.randn(5, 3)).shape == (5, 1)
    assert kinds(MLP(3, (4,))) == [nn.Linear, nn.ReLU]
    assert MLP(3, (4,)).output_width == 4


def test_one_activation_for_each_layer():
    assert kinds(MLP(3, (4, 2), activations=("tanh", "dice")))[1::2] == [nn.Tanh, Dice]
    with pytest.raises(UserError, match="1 activations for 2 hidden layers"):
        MLP(3, (4, 2), activations=("tanh",))


def test_dice_matches_its_formula():
    x = torch.randn(50, 3, dtype=torch.float64)
    dice = Dice(3).double()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.0, 0.5, 2.0]))
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-9).sqrt())
    torch.testing.assert_close(dice(x), p * x + dice.alpha * (1 - p) * x)


def test_batch_norm_accepts_one_row_and_none():
    norm = BatchNorm(3)
    many = torch.randn(20, 3) * 3 + 1
    expected = (many - many.mean(0)) / (many.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(norm(many), expected)
    running = norm.running_mean.clone(), norm.running_var.clone()
    one = (many[:1] - running[0]) / (running[1] + norm.eps).sqrt()
    torch.testing.assert_close(norm(many[:1]), one)
    assert norm(many[:0]).shape == (0, 3)
    assert torch.equal(norm.running_mean, running[0])
