"""All execution modes of a Transformer give the same output and gradients."""

import copy

import pytest
import torch
from torch import nn

from tossctr.models.layers.packed import Events
from tossctr.models.layers.transformer import Transformer, TransformerBlock

LENGTHS = [3, 1, 20, 7]
EVENTS = Events(torch.tensor([0, *LENGTHS]).cumsum(0), sum(LENGTHS), max(LENGTHS))


class SameDropout(nn.Module):
    """Dropout that draws as the fused block does."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        keep = torch.rand(x.shape) >= self.p
        return x * keep / (1 - self.p)


def draw(module, width=12):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return torch.randn(EVENTS.count, width, generator=generator)


def outcome(run, module, x):
    """The output, and the gradients of x and of the parameters."""
    x = x.detach().requires_grad_()
    out = run(x)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, [x, *module.parameters()], weight)]


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.to(b.dtype), b, **tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_block_matches_its_modules(causal, dropout):
    block = TransformerBlock(12, 2, causal=causal, net_dropout=dropout)
    x = draw(block)
    modules = copy.deepcopy(block)
    if dropout > 0:
        modules.dropout = SameDropout(dropout)
    torch.manual_seed(5)
    found = outcome(lambda x: block(x, EVENTS, None), block, x)
    torch.manual_seed(5)
    by_module = outcome(
        lambda x: modules._after_attention(x, modules.attention(x, EVENTS, None)), modules, x
    )
    assert type(found[0].grad_fn).__name__ == "FusedBlockBackward"
    assert_same(found, by_module, atol=2e-5, rtol=1e-4)


def test_fused_blocks_match_double_precision():
    fused = Transformer(12, 2, layers=2)
    x = draw(fused)
    exact = copy.deepcopy(fused).double()
    assert_same(
        outcome(lambda x: fused(x, EVENTS), fused, x),
        outcome(lambda x: exact(x, EVENTS), exact, x.double()),
        atol=5e-5,
        rtol=1e-3,
    )


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"layer_norm": False}])
def test_last_only_matches_the_full_output(options, layers):
    transformer = Transformer(12, 3, layers=layers, **options).double()
    x = draw(transformer).double()
    assert_same(
        outcome(lambda x: transformer(x, EVENTS, last_only=True), transformer, x),
        outcome(lambda x: transformer(x, EVENTS)[EVENTS.last], transformer, x),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last_only", [False, True])
def test_checkpointing_does_not_change_gradients(dtype, last_only):
    transformer = Transformer(12, 2, layers=2, net_dropout=0.3).to(dtype)
    x = draw(transformer).to(dtype)
    results = []
    for transformer.checkpointing in (False, True):
        torch.manual_seed(3)
        results.append(
            outcome(lambda x: transformer(x, EVENTS, last_only=last_only), transformer, x)
        )
    assert_same(*results, atol=0, rtol=0)
