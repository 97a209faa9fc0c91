"""Checks before anything is prepared, and before anything is trained."""

from __future__ import annotations

import math

import numpy as np

from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.families.registry import family_of
from tossctr.metrics.registry import evaluate
from tossctr.runs.mlflow_log import require_mlflow


def check_model(experiment: Experiment, processes: int = 1) -> None:
    """Check an experiment's model before hours are spent on its data.

    Args:
        experiment: what is to be trained.
        processes: number of processes that train it together.

    Raises:
        UserError: model options that do not fit the data set's features or each other, a model
            that does not fit into memory, or what several processes cannot train.
    """
    if experiment.training.mlflow_uri is not None:
        require_mlflow()
    dataset = experiment.dataset
    # Vocabularies are not known yet, and no option depends on their sizes.
    fields = tuple(c.field(3 if c.has_vocabulary else None) for c in field_encodings(dataset))
    features = FeatureMap(
        dataset_id=dataset.dataset_id, label=dataset.label_col.name, fields=fields
    ).with_lengths(dataset, experiment.training.max_len)
    family_of(experiment.model).check(experiment, features, processes)


def check_monitor(config: TrainingConfig, valid_rows: EncodedRows) -> None:
    """Check that the monitor is defined on the validation split.

    Raises:
        UserError: it is NaN for any predictions.
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
