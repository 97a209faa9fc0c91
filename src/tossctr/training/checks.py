"""Checks of a network experiment before its data are prepared."""

from __future__ import annotations

import os

import torch
from torch import nn

from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.models import build_model
from tossctr.models.layers.norm import has_batch_norm
from tossctr.training.regularization import Penalty

_PLAIN = "set batch_norm: false, and prelu where an activation is dice (DIN's default)"


def check_network(experiment: Experiment, features: FeatureMap, processes: int) -> None:
    """Build the model without weights.

    Raises:
        UserError: as `training.family.Family.check`.
    """
    if processes > 1 and experiment.training.loss == "pairwise":
        raise UserError(
            "the pairwise loss needs the whole batch, but each process has a part of it",
            key="loss",
            value="pairwise",
            remedy="choose another loss, or leave out --workers",
        )
    for key in ("embedding_regularizer", "net_regularizer"):
        Penalty.parse(getattr(experiment.training, key), key)
    if has_batch_norm(check_size(experiment, features)):
        _check_whole_batches(experiment.training, processes)


def check_size(experiment: Experiment, features: FeatureMap) -> nn.Module:
    """The model on the meta device, without memory for weights.

    Raises:
        UserError: its weights and gradients need more than this machine's memory.
    """
    with torch.device("meta"):
        model = build_model(experiment.model, features, experiment.hyperparameters)
    tensors = [*model.parameters(), *model.buffers()]
    needed = sum(t.numel() * t.element_size() * (1 + t.requires_grad) for t in tensors)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        largest = max(model.named_parameters(), key=lambda item: item[1].numel())
        raise UserError(
            f"the model's weights and gradients need {needed / 1e9:,.0f} GB, and this machine has "
            f"{available / 1e9:,.0f} GB; the largest is {largest[0]} {tuple(largest[1].shape)}",
            remedy="lower embedding_dim, max_len or the number of units",
        )
    return model


def _check_whole_batches(config: TrainingConfig, processes: int) -> None:
    """Refuse to split a batch that batch normalisation takes its statistics from."""
    if config.micro_batch_events is not None:
        raise UserError(
            "batch normalisation needs the whole batch at once, not micro-batches",
            key="micro_batch_events",
            value=config.micro_batch_events,
            remedy=f"leave it out, or {_PLAIN}",
        )
    if processes > 1:
        raise UserError(
            "batch normalisation needs the whole batch, but each process has a part of it",
            key="--workers",
            value=processes,
            remedy=f"leave --workers out, or {_PLAIN}",
        )
