"""Named choices, separate from their implementation so that the command line starts fast."""

from __future__ import annotations

from typing import Literal, get_args

Objective = Literal["competition_score", "logloss", "raw"]  # what probabilities are calibrated for
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Method = Literal["logit_mean", "mean", "rank_mean", "weights"]  # to blend predictions
METHODS: tuple[Method, ...] = get_args(Method)  # simplest first
FoldMethod = Literal["stratified", "random", "time", "group"]  # how rows are assigned to folds
