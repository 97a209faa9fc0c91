"""Standard errors against the deviation over independent samples and closed forms."""

import numpy as np
import pytest
from scipy.special import expit

from tossctr.metrics.registry import default_metrics, evaluate
from tossctr.metrics.uncertainty import MeanStd, standard_errors
from tossctr.report.delong import Z95, auc_interval


def drawn(rng, rows):
    true = rng.normal(-3.2, 1.3, rows)
    label = (rng.random(rows) < expit(true)).astype(float)
    return label, true + rng.normal(0, 0.7, rows)


def test_they_are_the_deviation_over_independent_samples():
    rng = np.random.default_rng(0)
    draws = [drawn(rng, 1500) for _ in range(50)]  # about 110 clicks each
    values = [evaluate(*rows) for rows in draws]
    errors = [standard_errors(*rows) for rows in draws[:25]]
    for name in default_metrics():
        std = np.std([v[name] for v in values], ddof=1)
        error = np.sqrt(np.mean([e[name] ** 2 for e in errors]))
        assert error == pytest.approx(std, rel=0.3), name


def test_they_are_near_the_closed_forms():
    label, logit = drawn(np.random.default_rng(1), 20_000)
    errors = standard_errors(label, logit)
    _, half = auc_interval(label, logit)
    assert errors["AUC"] == pytest.approx(half / Z95, rel=0.4)
    p = expit(logit)
    each = -np.log(np.where(label == 1, p, 1 - p))
    expected = np.std(each, ddof=1) / np.sqrt(len(each))
    assert errors["logloss"] == pytest.approx(expected, rel=0.4)


def test_with_few_clicks_only_logloss_has_a_standard_error():
    label, logit = drawn(np.random.default_rng(2), 3000)
    label[np.flatnonzero(label)[19:]] = 0
    errors = standard_errors(label, logit)
    assert errors["logloss"] > 0
    assert all(np.isnan(error) for name, error in errors.items() if name != "logloss")


def test_mean_and_deviations_are_those_of_a_sample():
    assert MeanStd.of([0.25, 0.75]) == MeanStd(0.5, pytest.approx(0.5**1.5), pytest.approx(0.25))
    assert MeanStd.of([0.25]) == MeanStd(0.25, 0.0, 0.0)
