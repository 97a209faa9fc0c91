import pytest
import torch
from torch import nn

from tossctr.errors import UserError
from tossctr.training.regularization import Penalty


@pytest.mark.parametrize(
    ("text", "l1", "l2"),
    [
        (None, 0, 0),
        (0.1, 0, 0.1),
        (1, 0, 1),  # an int counts, unlike in the reference (its defect 10)
        ("l1(0.5)", 0.5, 0),
        ("l2(1e-5)", 0, 1e-5),
        ("l1_l2(0.1, 2)", 0.1, 2),
    ],
)
def test_notation(text, l1, l2):
    assert Penalty.parse(text, "embedding_regularizer") == Penalty(l1, l2)


@pytest.mark.parametrize("text", ["l3(1)", "l2(x)", "l1(1,2)", "l2(1e)", ""])
def test_other_text_is_refused(text):
    with pytest.raises(UserError, match="net_regularizer"):
        Penalty.parse(text, "net_regularizer")


def test_gradient_matches_the_explicit_penalty():
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    untouched = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    penalty = Penalty(l1=0.3, l2=0.7)
    loss = 0.3 * (p.abs().sum() + untouched.abs().sum())
    loss = loss + 0.7 / 2 * (p.square().sum() + untouched.square().sum()) + (p**3).sum()
    expected = torch.autograd.grad(loss, [p, untouched])

    (p**3).sum().backward()
    penalty.add_gradient([p, untouched])
    torch.testing.assert_close(p.grad, expected[0])
    torch.testing.assert_close(untouched.grad, expected[1])
