import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tossctr.report.delong import auc_interval, drop_interval


def draw(rng, rows, strength=1.0):
    label = (rng.random(rows) < 0.3).astype(float)
    return label, strength * label + rng.normal(size=rows)


def test_auc_and_drop_are_exact_with_ties():
    rng = np.random.default_rng(0)
    label, score = draw(rng, 500)
    score, worse = score.round(1), rng.normal(size=500).round(1)
    assert auc_interval(label, score)[0] == pytest.approx(roc_auc_score(label, score))
    expected = roc_auc_score(label, score) - roc_auc_score(label, worse)
    assert drop_interval(label, score, worse)[0] == pytest.approx(expected)


def test_intervals_have_their_nominal_coverage():
    rng = np.random.default_rng(1)
    truth = auc_interval(*draw(rng, 400_000))[0]
    inside = 0
    for _ in range(400):
        auc, half = auc_interval(*draw(rng, 300))
        inside += abs(auc - truth) <= half
    assert 0.92 <= inside / 400 <= 0.98


def test_a_paired_difference_has_a_narrower_interval():
    rng = np.random.default_rng(2)
    label, score = draw(rng, 600)
    _, alone = auc_interval(label, score)
    _, paired = drop_interval(label, score, score + 0.1 * rng.normal(size=600))
    assert paired < alone / 2
    assert drop_interval(label, score, score) == (0.0, 0.0)


def test_one_click_has_an_infinite_interval():
    assert auc_interval(np.array([1, 0, 0]), np.array([2.0, 1, 0])) == (1.0, float("inf"))
