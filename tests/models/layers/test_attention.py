"""Packed and padded attention against a plain one, row by row."""

import pytest
import torch
from torch.autograd import gradcheck

from tossctr.models.layers import attention
from tossctr.models.layers.attention import packed_attention, pad_in_groups, padded_attention
from tossctr.models.layers.packed import Events

CASES = {
    "unsorted": [3, 1, 9, 2, 9, 8, 1],
    "ascending": [1, 1, 2, 3, 8, 9, 9],
    "equal": [4, 4, 4],
    "one row": [6],
    "long tail": [1] * 20 + [40],
}


def events_of(lengths):
    return Events(torch.tensor([0, *lengths]).cumsum(0), sum(lengths), max(lengths))


def draw(events, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (events, width)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(3)
    ]


def plain_attention(q, k, v, lengths, heads, causal):
    out = []
    for qr, kr, vr in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        parts = []
        for qh, kh, vh in zip(
            qr.chunk(heads, 1), kr.chunk(heads, 1), vr.chunk(heads, 1), strict=True
        ):
            scores = qh @ kh.T / qh.shape[1] ** 0.5
            if causal:
                later = torch.ones_like(scores, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(later, float("-inf"))
            parts.append(scores.softmax(1) @ vh)
        out.append(torch.cat(parts, 1))
    return torch.cat(out)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_packed_attention_matches_plain_attention_per_row(case, heads, causal):
    lengths = CASES[case]
    events = events_of(lengths)
    qkv = draw(events.count)
    found = packed_attention(*qkv, pad_in_groups(events, heads), heads, causal=causal)
    plain = plain_attention(*qkv, lengths, heads, causal)
    torch.testing.assert_close(found, plain)
    weight = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), qkv),
        torch.autograd.grad((plain * weight).sum(), qkv),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients(causal):
    slots = pad_in_groups(events_of([2, 4, 4, 1]), 2)
    qkv = draw(11, width=2)
    assert gradcheck(lambda q, k, v: packed_attention(q, k, v, slots, 2, causal=causal), qkv)


def test_groups_have_similar_lengths_and_bounded_scores(monkeypatch):
    lengths = [1, 64, 60, 30, 29, 2, 64]
    events = events_of(lengths)
    shapes = [(g.rows, g.length, g.filled is None) for g in pad_in_groups(events, 2).groups]
    assert shapes == [(3, 64, False), (2, 30, False), (1, 2, True), (1, 1, True)]
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 64 * 64)
    assert [g.rows for g in pad_in_groups(events, 2).groups] == [1, 1, 1, 2, 1, 1]
    qkv = draw(events.count)
    found = packed_attention(*qkv, pad_in_groups(events, 2), 2)
    torch.testing.assert_close(found, plain_attention(*qkv, lengths, 2, False))


@pytest.mark.parametrize("causal", [False, True])
def test_padded_attention_matches_plain_attention_for_real_events(causal):
    history = torch.tensor([0, 4, 2, 1])
    length = 5
    real = torch.arange(length) >= length - 1 - history[:, None]
    offsets = torch.arange(5) * length
    events = Events(offsets, 4 * length, length, real.flatten())
    qkv = draw(4 * length)
    found = padded_attention(*qkv, events, 2, causal=causal)
    assert torch.isfinite(found).all()
    kept = [x[real.flatten()] for x in qkv]
    plain = plain_attention(*kept, (history + 1).tolist(), 2, causal)
    torch.testing.assert_close(found[real.flatten()], plain)
    # A padded query sees itself and, unless causal, the real events.
    if causal:
        torch.testing.assert_close(found[0], qkv[2][0])


def test_dropout_preserves_the_mean_weight():
    events = events_of([300, 300])
    q = torch.zeros(600, 2)
    v = torch.ones(600, 2)
    torch.manual_seed(0)
    out = packed_attention(q, q, v, pad_in_groups(events, 1), 1, dropout_p=0.5)
    assert out.std() > 0
    assert abs(float(out.mean()) - 1) < 0.02
