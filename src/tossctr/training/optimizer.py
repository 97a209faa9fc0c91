"""The optimizers of torch, by their names in the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tossctr.config.schema import TrainingConfig
from tossctr.models.base import CTRModel

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def new_optimizer(model: CTRModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimizer, fused where torch supports it."""
    options: dict[str, Any] = {} if config.optimizer == "rmsprop" else {"fused": True}
    if config.optimizer == "adamw":
        options["weight_decay"] = 0.01 if config.weight_decay is None else config.weight_decay
    kind = OPTIMIZERS[config.optimizer]
    return kind(model.parameters(), lr=config.learning_rate, **options)
