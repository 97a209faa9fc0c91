"""Which way a monitor is better follows from its metrics; what contradicts them is refused."""

import numpy as np
import pytest

from tossctr.config.schema import TrainingConfig
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.metrics.registry import METRICS, evaluate, find_metric


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("AUC", "max"),
        ("logloss", "min"),
        ("WLL", "min"),
        ("competition_score", "max"),
        ({"AUC": 1, "logloss": -1}, "max"),
        ({"AUC": -1, "logloss": 1}, "min"),
        ({"logloss": 2}, "min"),
        ({"logloss": -1}, "max"),
        ({"AUC": 0, "logloss": 1}, "min"),
    ],
)
def test_the_metrics_say_which_way_is_better(monitor, mode):
    assert TrainingConfig(monitor=monitor).monitor_mode == mode
    assert TrainingConfig(monitor=monitor, monitor_mode=mode).monitor_mode == mode
    other = {"max": "min", "min": "max"}[mode]
    with pytest.raises(UserError, match="contradicts monitor"):
        TrainingConfig(monitor=monitor, monitor_mode=other)


@pytest.mark.parametrize("name", ["gAUC", "avgAUC", "MRR", "NDCG(k=3)"])
def test_metrics_within_groups_are_better_large(name):
    assert TrainingConfig(monitor=name, group_id="user").monitor_mode == "max"


@pytest.mark.parametrize("name", [*METRICS, "NDCG(k=3)"])
def test_the_directions_are_those_of_better_predictions(name):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400).astype(float)
    group = rng.integers(0, 20, 400)
    good, bad = ((label - 0.5) * s + rng.normal(size=400) for s in (3, 0.1))
    good, bad = (evaluate(label, logit, [name], group=group)[name] for logit in (good, bad))
    assert (good > bad) == find_metric(name).higher_is_better


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            ["monitor={AUC: 1, logloss: 1}"],
            "--set: small.monitor is not valid: mixes metrics to maximize and metrics to "
            "minimize (found {'AUC': 1.0, 'logloss': 1.0}); write {AUC: 1, logloss: -1}",
        ),
        (
            ["monitor=logloss", "monitor_mode=max"],
            "--set: small.monitor_mode is not valid: contradicts monitor, of which lower is "
            "better: logloss (found 'max'); remove monitor_mode: the metrics determine it",
        ),
        (
            ["monitor={AUC: 0}"],
            "--set: small.monitor is not valid: is empty or has only zero weights (found "
            "{'AUC': 0.0}); give a metric the weight 1",
        ),
        (["monitor=3"], "--set: small.monitor must be a mapping (found 3)"),
    ],
)
def test_a_contradiction_is_one_line(config_dir, keys, line):
    with pytest.raises(UserError) as error:
        load_experiment(config_dir, "small", keys)
    assert error.value.line() == line


def test_a_loss_given_on_the_command_line_is_minimised(config_dir):
    assert load_experiment(config_dir, "small").training.monitor_mode == "max"
    chosen = load_experiment(config_dir, "small", ["monitor=logloss"])
    assert chosen.training.monitor_mode == "min"
