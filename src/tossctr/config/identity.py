"""When two trainings are the same: what of a config weights depend on."""

from __future__ import annotations

from typing import Any

from tossctr.config.schema import Experiment

# Where files lie; which rows are in them is told by hashes of what was prepared.
PLACES = {"data_root", "train_data", "valid_data", "test_data", "sample_submission"}
# What is made of predictions afterwards.
AFTERWARDS = {"objective"}
# How a training is carried out and told of.
MANNER = {
    "model_root", "num_workers", "verbose", "checkpoint_minutes", "mlflow_uri",
}  # fmt: skip


def identity(experiment: Experiment) -> dict[str, Any]:
    """The config without what changes no weight, as JSON: equal wherever the project lies, so that
    a training goes on where a disk has been mounted somewhere else."""
    return experiment.model_dump(
        mode="json",
        serialize_as_any=True,
        exclude={"dataset": PLACES | AFTERWARDS, "training": MANNER},
    )
