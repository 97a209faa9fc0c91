"""Each interaction block against its formula, one event at a time."""

import pytest
import torch

from tossctr.errors import UserError
from tossctr.models.layers.autoint import AutoIntLayer
from tossctr.models.layers.interaction import Interaction
from tossctr.models.layers.packed import Events

FIELDS, WIDTH = 3, 4


@pytest.fixture
def block_of(randomise):
    def make(name, layers=2):
        interaction = Interaction(name, [WIDTH] * FIELDS, layers, 0.0).double()
        randomise(interaction)
        return interaction

    return make


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, FIELDS * WIDTH, dtype=torch.float64, generator=generator)


def crossnet(block, x0):
    x = x0
    for w, b in zip(block.weights, block.biases, strict=True):
        x = x + (w.weight[0] @ x) * x0 + b
    return x


def crossnetv2(block, x0):
    x = x0
    for a in block.linears:
        x = x + x0 * (a.weight @ x + a.bias)
    return x


def crossnet_mix(block, x0):
    x = x0
    for v, c, u, b in zip(block.v, block.c, block.u, block.biases, strict=True):
        gates = torch.stack([g @ x for g in block.gates.weight]).softmax(0)
        x = x + sum(
            gates[e] * x0 * (u[e] @ torch.tanh(c[e] @ torch.tanh(v[e].T @ x)) + b) for e in range(4)
        )
    return x


def autoint(block, x):
    x = x.view(FIELDS, WIDTH)
    for layer in block:
        q, k, v = x @ layer.query.weight.T, x @ layer.key.weight.T, x @ layer.value.weight.T
        mixed = (q @ k.T / WIDTH**0.5).softmax(1) @ v + x
        centred = mixed - mixed.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        x = (normed * layer.norm.weight + layer.norm.bias).clamp(min=0)
    return x.flatten()


def destine(block, x):
    x = x.view(FIELDS, WIDTH)
    for layer in block:
        q, k, v = layer.query(x), layer.key(x), layer.value(x)
        pair = ((q - q.mean(0)) @ (k - k.mean(0)).T / WIDTH**0.5).softmax(1)
        unary = layer.unary(x)[:, 0].softmax(0)
        x = torch.stack([(pair[i] + unary) @ v for i in range(FIELDS)]) + layer.residual(x)
    return x.flatten()


def final(block, x):
    for linear, norm in zip(block.linears, block.norms, strict=True):
        h = linear.weight @ x + linear.bias
        a, g = h[: len(x)], h[len(x) :]
        h = (a + a * g - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        x = (norm.weight * h + norm.bias).clamp(min=0)
    return x


@pytest.mark.parametrize(
    "formula",
    [crossnet, crossnetv2, crossnet_mix, autoint, destine, final],
    ids=lambda f: f.__name__,
)
def test_blocks_match_their_formula(block_of, x, formula):
    interaction = block_of(formula.__name__).eval()
    expected = torch.stack([formula(interaction.block, event) for event in x])
    torch.testing.assert_close(interaction(x), expected)


def test_none_is_the_identity(block_of, x):
    assert torch.equal(block_of("none")(x), x)


def test_attention_over_fields_needs_equal_widths():
    with pytest.raises(UserError, match=r"autoint.*one embedding_dim"):
        Interaction("autoint", [4, 2], 1, 0.0)


def test_autoint_heads_are_independent(randomise):
    layer = AutoIntLayer(WIDTH, 6, num_heads=2, layer_norm=False).double()
    randomise(layer)
    x = torch.randn(FIELDS, WIDTH, dtype=torch.float64)
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    heads = [(q[:, h] @ k[:, h].T / 3**0.5).softmax(1) @ v[:, h] for h in (slice(3), slice(3, 6))]
    expected = (torch.cat(heads, 1) + layer.residual(x)).clamp(min=0)
    torch.testing.assert_close(layer(x[None])[0], expected)


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("name", ["crossnetv2", "crossnet", "autoint", "none"])
def test_forward_shared_matches_forward(block_of, name, layers):
    interaction = block_of(name, layers)
    events = Events(torch.tensor([0, 2, 3, 7]), 7, 4)
    generator = torch.Generator().manual_seed(0)
    own, shared = (
        torch.randn(n, width, dtype=torch.float64, generator=generator).requires_grad_()
        for n, width in ((7, WIDTH), (3, 2 * WIDTH))
    )
    found = interaction.forward_shared(own, shared, events)
    plain = interaction(torch.cat([own, shared[events.row]], dim=1))
    torch.testing.assert_close(found, plain)
    weight = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    inputs = [own, shared, *interaction.parameters()]
    for a, b in zip(
        torch.autograd.grad(found, inputs, weight),
        torch.autograd.grad(plain, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
