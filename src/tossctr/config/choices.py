"""What people choose by name, apart from what does it: the command line is quick to ask."""

from __future__ import annotations

from typing import Literal, get_args

Objective = Literal["competition_score", "logloss", "raw"]  # what probabilities are made for
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Method = Literal["logit_mean", "mean", "rank_mean", "weights"]  # of a blend
METHODS: tuple[Method, ...] = get_args(Method)  # from the simplest
FoldMethod = Literal["stratified", "random", "time", "group"]  # which rows go to which fold
FOLD_METHODS: tuple[FoldMethod, ...] = get_args(FoldMethod)
