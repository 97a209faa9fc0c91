"""The CPU kernel in float32 against a plain softmax in float64, row by row."""

import pytest
import torch

from tossctr.models.layers.attention_cpu import RaggedAttention
from tossctr.models.layers.attention_kernels import KEYS, QUERIES


def packed(lengths, heads, head_width, factor=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = factor * torch.randn(sum(lengths), 3 * heads * head_width, generator=generator)
    return qkv.requires_grad_(), torch.tensor([0, *lengths]).cumsum(0)


def plain(qkv, lengths, heads, causal):
    out = []
    for row in qkv.split(lengths):
        q, k, v = (t.unflatten(1, (heads, -1)).transpose(0, 1) for t in row.chunk(3, dim=1))
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if causal:
            later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        out.append((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(out)


def check(qkv, offsets, lengths, heads, causal, atol=2e-5):
    exact = qkv.detach().double().requires_grad_()
    found = RaggedAttention.apply(qkv, offsets, heads, causal)
    expected = plain(exact, lengths, heads, causal)
    weight = torch.linspace(-1, 1, found.numel()).view_as(found)
    (grad,) = torch.autograd.grad(found, qkv, weight)
    (exact_grad,) = torch.autograd.grad(expected, exact, weight.double())
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=1e-5)
    torch.testing.assert_close(grad.double(), exact_grad, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("heads", "head_width"),
    [(1, 1), (3, 4), (2, 8), (1, 12), (2, 16), (4, 24), (1, 32), (1, 40), (1, 48), (1, 56)],
)
def test_any_head_width(heads, head_width, causal):
    lengths = [1, 5, 17, 100]
    check(*packed(lengths, heads, head_width), lengths, heads, causal)


@pytest.mark.parametrize("causal", [False, True])
def test_lengths_around_block_boundaries(causal):
    lengths = [n + d for n in (16, QUERIES, KEYS, 2 * KEYS) for d in (-1, 0, 1)] + [1, 501]
    check(*packed(lengths, 2, 24), lengths, 2, causal)


def test_large_scores_do_not_overflow():
    lengths = [130, 3]
    qkv, offsets = packed(lengths, 1, 8, factor=1.0)
    with torch.no_grad():
        qkv[:130, :8] = 30.0  # all queries alike, scores of row 0 down to -2,500 and up to 2,500
        qkv[:130, 8:16] = torch.linspace(-30, 30, 130)[:, None]
        qkv[130:, 8:16] = -40 * qkv[130:, :8].sign()
    # A score of 2,500 is itself rounded to 1e-4.
    check(qkv, offsets, lengths, 1, causal=False, atol=1e-3)


def test_results_do_not_depend_on_threads(monkeypatch):
    lengths = [40, 3, 200, 1, 1, 77, 90, 12, 64]
    qkv, offsets = packed(lengths, 2, 24)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        out = RaggedAttention.apply(qkv, offsets, 2, False)
        results.append((out, *torch.autograd.grad(out, qkv, torch.ones_like(out))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_no_rows():
    qkv, offsets = packed([], 2, 8)
    out = RaggedAttention.apply(qkv, offsets, 2, False)
    assert out.shape == (0, 16)
    assert torch.autograd.grad(out.sum(), qkv)[0].shape == (0, 48)
