"""The part of a config that the weights depend on, which identifies a training."""

from __future__ import annotations

from typing import Any

from tossctr.config.schema import Experiment

# Paths. The prepared data's hashes tell the content of the files.
PLACES = {"data_root", "train_data", "valid_data", "test_data", "sample_submission"}
# Applied to predictions after training.
AFTERWARDS = {"objective"}
# How training runs and is logged.
MANNER = {
    "model_root", "num_workers", "verbose", "checkpoint_minutes", "mlflow_uri",
}  # fmt: skip


def identity(experiment: Experiment) -> dict[str, Any]:
    """The config without keys that do not affect weights, as JSON. It does not depend on the
    project's folder, so that training can resume after the project has moved."""
    return experiment.model_dump(
        mode="json",
        serialize_as_any=True,
        exclude={"dataset": PLACES | AFTERWARDS, "training": MANNER},
    )
