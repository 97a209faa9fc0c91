"""LightGBM's options: what is derived from a row, and how trees grow.

From the experiment come `epochs` (boosting rounds: each passes over all rows once), `eval_steps`
(rounds between two validations), `early_stop_patience` (validations) and `learning_rate`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tossctr.config.schema import ModelConfig
from tossctr.models.fields import Names


class LightGBMConfig(ModelConfig):
    """See `trees.features` for what the first group makes."""

    target_field: Names = ()  # the slot: categories and events are crossed with it
    top_events: int = Field(64, ge=0)  # ids of each sequence that get columns of their own
    half_lives: tuple[Annotated[float, Field(gt=0)], ...] = (8.0, 64.0)  # events
    last_events: int = Field(3, ge=0)  # newest ids whose click rates are columns
    encoding_folds: int = Field(5, ge=2)
    encoding_smoothing: float = Field(50.0, gt=0)  # rows at the mean click rate that each id gets

    num_leaves: int = Field(31, ge=2, le=131_072)
    max_depth: int = Field(-1, ge=-1)  # -1: no limit
    min_data_in_leaf: int = Field(100, ge=1)
    max_bin: int = Field(255, ge=2, le=255)  # one byte a value
    feature_fraction: float = Field(0.5, gt=0, le=1)  # columns drawn for each tree
    bagging_fraction: float = Field(0.8, gt=0, le=1)  # rows drawn for each tree
    lambda_l1: float = Field(0.0, ge=0)
    lambda_l2: float = Field(10.0, ge=0)
    min_gain_to_split: float = Field(0.0, ge=0)
