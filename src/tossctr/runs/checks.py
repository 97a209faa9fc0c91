"""What is known to be wrong before anything is prepared, and before anything is trained."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import nn

from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.metrics.registry import evaluate
from tossctr.models import build_model
from tossctr.models.layers.norm import has_batch_norm
from tossctr.training.mlflow_log import require_mlflow
from tossctr.training.regularization import Penalty
from tossctr.trees import TREES
from tossctr.trees.config import LightGBMConfig
from tossctr.trees.features import TreeFeatures

_PLAIN = "set batch_norm: false, and prelu where an activation is dice (DIN's default)"


def check_model(experiment: Experiment, processes: int = 1) -> None:
    """Build the experiment's model without weights, before hours are spent on its data.

    Args:
        experiment: what is to be trained.
        processes: how many train it together.

    Raises:
        UserError: model options that do not fit the data set's features or each other, a model
            that does not fit this machine's memory, what several processes cannot train.
    """
    if experiment.training.mlflow_uri is not None:
        require_mlflow()
    dataset = experiment.dataset
    # Vocabularies are not known yet, and no option depends on their sizes.
    fields = tuple(c.field(3 if c.has_vocabulary else None) for c in field_encodings(dataset))
    features = FeatureMap(
        dataset_id=dataset.dataset_id, label=dataset.label_col.name, fields=fields
    ).with_lengths(dataset, experiment.training.max_len)
    if processes > 1:
        _check_joint(experiment)
    if isinstance(experiment.hyperparameters, LightGBMConfig):
        TreeFeatures(features, experiment.hyperparameters)
        return
    for key in ("embedding_regularizer", "net_regularizer"):
        Penalty.parse(getattr(experiment.training, key), key)
    model = check_size(experiment, features)
    if has_batch_norm(model):
        _check_whole_batches(experiment.training, processes)


def check_size(experiment: Experiment, features: FeatureMap) -> nn.Module:
    """The model without weights, whose weights and gradients this machine's memory can hold.

    Raises:
        UserError: it cannot.
    """
    with torch.device("meta"):
        model = build_model(experiment.model, features, experiment.hyperparameters)
    tensors = [*model.parameters(), *model.buffers()]
    needed = sum(t.numel() * t.element_size() * (1 + t.requires_grad) for t in tensors)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        largest = max(model.named_parameters(), key=lambda item: item[1].numel())
        raise UserError(
            f"the model's weights and gradients need {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB; the largest is {largest[0]} {tuple(largest[1].shape)}",
            remedy="lower embedding_dim, max_len or the number of units",
        )
    return model


def _check_whole_batches(config: TrainingConfig, processes: int) -> None:
    """Batch normalisation takes its statistics from the batch, so no part may stand for it."""
    if config.micro_batch_events is not None:
        raise UserError(
            "batch normalisation needs the whole batch at once, not parts of it",
            key="micro_batch_events",
            value=config.micro_batch_events,
            remedy=f"leave it out, or {_PLAIN}",
        )
    if processes > 1:
        raise UserError(
            "batch normalisation needs the whole batch, which no process has",
            key="--workers",
            value=processes,
            remedy=f"leave --workers out, or {_PLAIN}",
        )


def _check_joint(experiment: Experiment) -> None:
    """Refuse what cannot be trained by several processes."""
    if experiment.model in TREES:
        raise UserError(
            "trees are trained by one process",
            key="model",
            value=experiment.model,
            remedy="leave out --workers; LightGBM uses all cores by itself",
        )
    if experiment.training.loss == "pairwise":
        raise UserError(
            "pairs span the whole batch, which no process has",
            key="loss",
            value="pairwise",
            remedy="choose another loss, or leave out --workers",
        )


def check_monitor(config: TrainingConfig, valid_rows: EncodedRows) -> None:
    """Refuse a validation part on which the monitor is not defined, before training on the rest.

    Raises:
        UserError: it is NaN whatever the predictions are.
    """
    group = None if config.group_id is None else valid_rows.groups(config.group_id)
    names = tuple(name for name, weight in config.monitor.items() if weight)
    scores = np.zeros(len(valid_rows))
    for name, value in evaluate(valid_rows.labels, scores, names, group=group).items():
        if math.isnan(value):
            clicks = int(np.count_nonzero(valid_rows.labels))
            of = f"{len(valid_rows):,} validation rows, {clicks:,} of them clicks"
            within = "" if group is None else f", in groups by {config.group_id}"
            raise UserError(
                f"{name} is not defined on the {of}{within}",
                key="monitor",
                value=dict(config.monitor),
                remedy="it needs clicks and non-clicks (within a group): raise "
                "valid_split.fraction, set valid_split.method: stratified, or monitor logloss",
            )
