import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from tossctr.metrics.ceiling import ceiling, lift
from tossctr.metrics.registry import default_metrics, evaluate


@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_weighted_logloss_is_the_mean_of_both_classes(seed, rows):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    label[:2] = 0, 1
    logit = rng.normal(size=rows) * 3
    values = evaluate(label, logit)
    probability = 1 / (1 + np.exp(-logit))
    weights = np.where(label == 1, 0.5 / label.sum(), 0.5 / (rows - label.sum()))
    assert values["WLL"] == pytest.approx(log_loss(label, probability, sample_weight=weights))
    assert values["logloss"] == pytest.approx(log_loss(label, probability))
    assert values["competition_score"] == pytest.approx(
        0.5 * values["AP"] + 0.5 / (1 + values["WLL"])
    )


def test_a_known_example():
    # Positives score 3 and 1, negatives 2 and 0: 3 of 4 pairs are in order; the second positive
    # is found at rank 3, so AP = (1/1 + 2/3) / 2.
    values = evaluate(np.array([1, 0, 1, 0]), np.array([3.0, 2.0, 1.0, 0.0]))
    assert values["AUC"] == pytest.approx(0.75)
    assert values["AP"] == pytest.approx(5 / 6)


def test_ranking_metrics_see_differences_below_float32():
    logit = np.array([1.0, 1.0 + 1e-12])
    assert evaluate(np.array([0, 1]), logit, ["AUC"])["AUC"] == 1.0


@pytest.mark.parametrize("only", [0, 1])
def test_metrics_that_need_both_classes_are_nan_for_one(only):
    values = evaluate(np.full(5, only), np.zeros(5))
    assert math.isnan(values["AUC"])
    assert math.isnan(values["WLL"])
    assert math.isnan(values["competition_score"])
    assert values["logloss"] == pytest.approx(math.log(2))


def test_extreme_logits_stay_finite():
    values = evaluate(np.array([0, 1]), np.array([1e4, -1e4]))
    assert all(math.isfinite(values[name]) for name in default_metrics())


def test_no_model_beats_the_ceiling_and_the_prior_shift_lowers_wll():
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(-rng.normal(-4, 1, 200_000)))
    label = (rng.random(len(probability)) < probability).astype(int)
    best = ceiling(label, probability)
    true_logit = np.log(probability / (1 - probability))
    noisy = evaluate(label, true_logit + rng.normal(0, 1, len(label)))
    assert best["AUC"] > noisy["AUC"] + 0.02
    assert best["competition_score"] > noisy["competition_score"]
    assert best["WLL"] < 0.7 * evaluate(label, true_logit, ["WLL"])["WLL"]
    assert lift(best["AUC"], best["AUC"]) == 1
    assert lift(0.5, best["AUC"]) == 0
