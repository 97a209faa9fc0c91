"""Log finished trainings to MLflow."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from typing import Any

from tossctr.config.schema import Experiment
from tossctr.errors import UserError
from tossctr.progress import say

# Gives up on an unreachable server after half a minute instead of MLflow's four.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def require_mlflow() -> None:
    """Check that MLflow is installed, before hours of training.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(
            "MLflow is not installed",
            key="mlflow_uri",
            remedy="pip install 'tossctr[mlflow]', or leave the key out",
        )


def log_run(uri: str, experiment: Experiment, metrics: Mapping[str, Any]) -> None:
    """Log one MLflow run to the experiment named after the data set: the config as parameters, the
    metrics of each validation by its number, the best ones as `best_*`.

    The run's folder is complete, so an unreachable server only logs a warning.

    Args:
        uri: of the tracking server, or `sqlite:///runs.db`.
        metrics: the content of metrics.json.
    """
    from lightning.pytorch.loggers import MLFlowLogger

    for variable, value in _PATIENCE.items():
        os.environ.setdefault(variable, value)
    for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        logger = MLFlowLogger(
            experiment.dataset.dataset_id, run_name=experiment.expid, tracking_uri=uri
        )
        logger.log_hyperparams(
            {
                "model": experiment.model,
                **experiment.training.model_dump(mode="json"),
                **experiment.hyperparameters.model_dump(mode="json"),
            }
        )
        for number, row in enumerate(metrics["history"]):  # an epoch may have several validations
            logger.log_metrics(_numbers(row), step=number)
        logger.log_metrics({f"best_{name}": v for name, v in _numbers(metrics["best"]).items()})
        logger.log_metrics(_numbers(metrics))
        logger.finalize("success")
    except Exception as error:  # MLflow, its database and its transport have no common base class
        say(f"not logged to MLflow at {uri}: {type(error).__name__}: {str(error).splitlines()[0]}")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
