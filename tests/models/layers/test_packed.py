import torch
from torch.autograd import gradcheck

from tossctr.data.batch import Ragged
from tossctr.models.layers.packed import (
    Events,
    append_target,
    broadcast,
    segment_mean,
    segment_softmax,
    segment_sum,
    with_target,
)

LENGTHS = [2, 1, 4]
EVENTS = Events(torch.tensor([0, 2, 3, 7]), 7, 4)


def packed(width=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, width, dtype=torch.float64, generator=generator)
    return x.requires_grad_()


def test_age_counts_later_events():
    assert EVENTS.age.tolist() == [1, 0, 0, 3, 2, 1, 0]
    assert EVENTS.row.tolist() == [0, 0, 1, 2, 2, 2, 2]


def test_the_target_is_appended_to_each_row():
    history = Ragged(torch.tensor([10, 20, 21, 22]), torch.tensor([0, 1, 1, 4]), 3)
    events = with_target(history)
    target = torch.tensor([1, 2, 3])
    joined = append_target(history.values, target, events)
    assert joined.tolist() == [10, 1, 2, 20, 21, 22, 3]
    assert (events.offsets.tolist(), events.count, events.max_length) == ([0, 2, 3, 7], 7, 4)

    def join(h, t):
        return append_target(h, t, events)

    assert gradcheck(join, (packed()[:4], packed()[4:]))


def test_real_events_of_padded_histories():
    history = Ragged(torch.zeros(6), torch.tensor([0, 3, 6]), 3)
    events = with_target(history, torch.tensor([1, 3]))
    assert events.real.tolist() == [False, False, True, True, True, True, True, True]


def test_reductions_and_broadcast_with_gradients():
    x = packed()
    rows = x.split(LENGTHS)
    torch.testing.assert_close(segment_sum(x, EVENTS), torch.stack([r.sum(0) for r in rows]))
    torch.testing.assert_close(segment_mean(x, EVENTS), torch.stack([r.mean(0) for r in rows]))
    one = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    assert torch.equal(broadcast(one, EVENTS), one[EVENTS.row])
    assert gradcheck(lambda x: segment_sum(x, EVENTS), x)
    assert gradcheck(lambda x: segment_mean(x, EVENTS), x)
    assert gradcheck(lambda x: broadcast(x, EVENTS), one)


def test_sum_of_scalars():
    x = packed()[:, 0]
    expected = torch.stack([r.sum() for r in x.split(LENGTHS)])
    torch.testing.assert_close(segment_sum(x, EVENTS), expected)


def test_softmax_per_row_of_large_scores():
    scores = torch.tensor([800.0, 801, -900, 1, 2, 3, 4], dtype=torch.float64)
    expected = torch.cat([r.softmax(0) for r in scores.split(LENGTHS)])
    torch.testing.assert_close(segment_softmax(scores, EVENTS), expected)
    assert gradcheck(lambda s: segment_softmax(s, EVENTS), packed()[:, 0])


def test_mean_and_softmax_ignore_padding():
    real = torch.tensor([False, True, True, False, False, True, True])
    events = Events(EVENTS.offsets, 7, 4, real)
    x = packed()
    expected = torch.stack([x[1], x[2], x[5:].mean(0)])
    torch.testing.assert_close(segment_mean(x, events), expected)
    weights = segment_softmax(x[:, 0], events)
    assert weights[~real].eq(0).all()
    torch.testing.assert_close(weights[5:], x[5:, 0].softmax(0))
