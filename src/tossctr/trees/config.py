"""LightGBM's options: derived features, tree growth and boosting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from tossctr.config.names import Names
from tossctr.config.schema import ModelConfig

BOOSTER = "model.txt"  # the trees, in LightGBM's own text format


class LightGBMConfig(ModelConfig):
    """The first group are options of `trees.features`; the others have LightGBM's names.

    `without_effect` are keys of all experiments that do not apply to trees. A `learning_rate` in
    `Base` applies to networks only.
    """

    without_effect: ClassVar[Mapping[str, str | None]] = {
        "epochs": "num_boost_round",
        "eval_steps": "eval_rounds",
        "early_stop_patience": "early_stopping_rounds",
        **dict.fromkeys(
            (
                "batch_size", "micro_batch_events", "gradient_checkpointing", "precision",
                "negative_sampling", "shuffle", "loss", "positive_weight", "focal_gamma",
                "pairwise_weight", "optimizer", "weight_decay", "max_gradient_norm",
                "embedding_regularizer", "net_regularizer", "reduce_lr_on_plateau", "on_nonfinite",
                "checkpoint_minutes", "num_workers", "embedding_dim", "numeric_embedding",
            )
        ),
    }  # fmt: skip

    target_field: Names = ()  # categories and events are crossed with these fields
    top_events: int = Field(64, ge=0)  # ids of each sequence that get count columns
    half_lives: tuple[Annotated[float, Field(gt=0)], ...] = (8.0, 64.0)  # events
    last_events: int = Field(3, ge=0)  # number of newest ids whose click rates are columns
    encoding_folds: int = Field(5, ge=2)
    encoding_smoothing: float = Field(50.0, gt=0)  # pseudo-count of rows per id

    learning_rate: float = Field(0.05, gt=0)
    num_boost_round: int = Field(2000, ge=1)  # maximum number of trees
    eval_rounds: int = Field(10, ge=1)  # trees between validations
    early_stopping_rounds: int = Field(100, ge=1)  # trees without improvement before stopping

    num_leaves: int = Field(31, ge=2, le=131_072)
    max_depth: int = Field(-1, ge=-1)  # -1: no limit
    min_data_in_leaf: int = Field(100, ge=1)
    max_bin: int = Field(255, ge=2, le=255)  # one byte per value
    feature_fraction: float = Field(0.5, gt=0, le=1)  # share of columns drawn per tree
    bagging_fraction: float = Field(0.8, gt=0, le=1)  # share of rows drawn per tree
    lambda_l1: float = Field(0.0, ge=0)
    lambda_l2: float = Field(10.0, ge=0)
    min_gain_to_split: float = Field(0.0, ge=0)
