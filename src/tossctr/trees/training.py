"""Boosting with early stopping on the experiment's monitor.

An interrupted training is not resumed; it restarts and gives the same trees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.rows import EncodedRows
from tossctr.errors import Untrainable
from tossctr.metrics.grouped import warn_of_missing_groups
from tossctr.metrics.monitor import Validations
from tossctr.metrics.registry import evaluate, reported
from tossctr.progress import say, track
from tossctr.training.folder import TrainingFolder
from tossctr.trees.config import BOOSTER, LightGBMConfig
from tossctr.trees.features import TreeFeatures
from tossctr.trees.lightgbm import ColumnSequence, save_booster

SAMPLED_ROWS = 100_000  # to choose the bins; in memory as float64
IMPORTANT = 30  # columns with their importance in metrics.json


def fit_trees(
    experiment: Experiment,
    options: LightGBMConfig,
    train_rows: EncodedRows,
    valid_rows: EncodedRows,
    folder: TrainingFolder,
    after_validation: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Derive columns, boost with early stopping, and save the trees of the best round.

    Memory: LightGBM's bins (at most one byte per value), 30 bytes per row for labels, scores and
    gradients, the sample for the bins, and one block of rows as floats.

    Returns:
        The content of metrics.json.
    """
    config = experiment.training
    started = time.monotonic()
    features = TreeFeatures(train_rows.features, options).fit(train_rows, config.seed)
    parameters = _parameters(options, config)
    train = lgb.Dataset(
        ColumnSequence(features, train_rows, out_of_fold=True),
        np.asarray(train_rows.labels),
        categorical_feature=features.categorical,
        params=parameters,
    ).construct()
    valid = lgb.Dataset(
        ColumnSequence(features, valid_rows, out_of_fold=False),
        np.asarray(valid_rows.labels),
        reference=train,
        params=parameters,
    ).construct()
    say(
        f"{experiment.expid}: {experiment.model}, {len(features.names):,} columns, "
        f"{len(train_rows):,} train and {len(valid_rows):,} validation rows"
    )
    booster = lgb.Booster(parameters, train).add_valid(valid, "valid")
    group = None if config.group_id is None else valid_rows.groups(config.group_id)
    warn_of_missing_groups(group, config.group_id)
    validations = Validations(config.monitor, config.monitor_mode)
    validation_seconds = 0.0
    with track("boost (rows x rounds)", len(train_rows) * options.num_boost_round) as advance:
        for round_ in range(1, options.num_boost_round + 1):
            finished = booster.update()  # no tree could be split
            advance(len(train_rows))
            last = round_ == options.num_boost_round or finished
            if round_ % options.eval_rounds == 0 or last:
                before = time.monotonic()
                metrics = _metrics(booster, valid_rows, group, config)
                validation_seconds += time.monotonic() - before
                rate = options.learning_rate
                validations.add(metrics, epoch=round_, step=round_, learning_rate=rate)
                if after_validation is not None:
                    after_validation(
                        len(validations.history) - 1, validations.history[-1]["monitor"]
                    )
                without_gain = validations.without_gain * options.eval_rounds
                if last:
                    break
                if without_gain >= options.early_stopping_rounds:
                    say(f"no improvement in {without_gain} rounds: stopping early")
                    break
    if validations.best_row is None:
        raise Untrainable(
            "no validation gave a usable monitor", key="monitor", value=dict(config.monitor),
            remedy="check the validation rows: they need clicks and non-clicks",
        )  # fmt: skip
    best = int(validations.best_row["epoch"])
    say(f"best in round {best}")
    folder.keep(features.state())
    save_booster(booster, folder.folder / BOOSTER, best)
    seconds = time.monotonic() - started - validation_seconds
    rounds = int(validations.history[-1]["epoch"])
    return {
        "best": validations.best_row,
        "history": validations.history,
        "parameters": _leaves(folder.folder / BOOSTER),
        "rows_per_s": len(train_rows) * rounds / seconds,
        "seconds": seconds,
        "skipped_batches": 0,
        "importance": _importance(booster, features, best),
    }


def _metrics(
    booster: lgb.Booster,
    rows: EncodedRows,
    group: NDArray[Any] | None,
    config: TrainingConfig,
) -> dict[str, float]:
    probabilities: list[NDArray[np.float64]] = []

    def record(probability: NDArray[np.float64], _: lgb.Dataset) -> tuple[str, float, bool]:
        probabilities.append(np.array(probability))
        return "unused", 0.0, True

    booster.eval_valid(record)
    names = reported(config.metrics, config.monitor)
    return evaluate(rows.labels, logit(probabilities[0]), names, group=group)


def _parameters(options: LightGBMConfig, config: TrainingConfig) -> dict[str, Any]:
    own = LightGBMConfig.model_fields.keys() & {
        "num_leaves", "max_depth", "min_data_in_leaf", "max_bin", "feature_fraction",
        "bagging_fraction", "lambda_l1", "lambda_l2", "min_gain_to_split",
    }  # fmt: skip
    return {
        **{name: getattr(options, name) for name in sorted(own)},
        "objective": "binary",
        "metric": "none",
        "learning_rate": options.learning_rate,
        "bagging_freq": 1,
        "bin_construct_sample_cnt": SAMPLED_ROWS,
        "seed": config.seed,
        "deterministic": True,
        "force_col_wise": True,  # else LightGBM chooses by timing; row-wise stores the bins twice
        "verbosity": -1,
    }


def _leaves(file: Path) -> int:
    """The number of leaves of all trees."""
    key = "num_leaves="
    with file.open(encoding="utf-8") as lines:
        return sum(int(line.removeprefix(key)) for line in lines if line.startswith(key))


def _importance(booster: lgb.Booster, features: TreeFeatures, rounds: int) -> dict[str, float]:
    """Share of the total gain, for the columns with the largest."""
    gain = booster.feature_importance("gain", iteration=rounds)
    order = np.argsort(-gain, kind="stable")[:IMPORTANT]
    total = max(float(gain.sum()), 1e-300)
    return {features.names[i]: float(gain[i]) / total for i in order if gain[i] > 0}
