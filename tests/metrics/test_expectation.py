"""benchmarks/expectation.py, on whose figures the docs rest."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from tossctr.metrics.registry import evaluate

EXPECTATION = runpy.run_path(
    str(Path(__file__).parents[2] / "benchmarks" / "expectation.py"), run_name="expectation"
)


def test_certain_clicks_have_the_metrics_of_their_labels():
    rng = np.random.default_rng(1)
    logit, label = rng.normal(size=200), rng.integers(0, 2, 200)
    found = EXPECTATION["expected_score"](logit, label.astype(float))
    found["AUC"] = EXPECTATION["expected_auc"](logit, label.astype(float))
    assert found == pytest.approx(evaluate(label, logit, tuple(found)), rel=1e-6)


def test_uncertain_clicks_have_the_mean_of_many_draws():
    rng = np.random.default_rng(2)
    logit = rng.normal(-1, 1.5, 5_000)
    probability = 1 / (1 + np.exp(-0.7 * logit))
    found = EXPECTATION["expected_score"](logit, probability)
    draws = [evaluate(rng.random(5_000) < probability, logit, tuple(found)) for _ in range(100)]
    for name, value in found.items():
        of_draws = [draw[name] for draw in draws]
        assert value == pytest.approx(np.mean(of_draws), abs=0.5 * np.std(of_draws))
