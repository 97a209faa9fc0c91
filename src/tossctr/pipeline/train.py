"""Train an experiment in one call, from raw files to saved held-out predictions."""

from __future__ import annotations

from pathlib import Path

import torch

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.schema import Experiment
from tossctr.data.prepare import open_prepared, prepare
from tossctr.inference.calibrator import calibrator_of
from tossctr.progress import say
from tossctr.runs.checks import check_model
from tossctr.runs.run import Run
from tossctr.runs.train import train


def run_folder(experiment: Experiment) -> Path:
    """The folder of an experiment's run: `<model_root>/<expid>`."""
    return experiment.training.model_root / experiment.expid


def train_experiment(
    experiment: Experiment,
    device: torch.device,
    *,
    fresh: bool = False,
    processes: Processes = ALONE,
) -> Run:
    """Prepare the data if needed, train into `run_folder`, and save the predictions on the
    validation split with a calibrator fit on them. Of several processes, rank 0 prepares and
    saves."""
    processes.everywhere(lambda: check_model(experiment, processes.world_size))
    dataset = experiment.dataset
    data = processes.first_then(lambda: prepare(dataset), others=lambda: open_prepared(dataset))

    def keep(run: Run) -> None:
        if not run.held_out_file.is_file():
            run.keep_held_out(data, device)
        calibrator_of(run, dataset.objective, device)

    run = train(
        experiment,
        data,
        device,
        run_folder(experiment),
        fresh=fresh,
        keep=keep,
        processes=processes,
    )
    processes.first(lambda: say(f"run saved in {run.folder}"))
    return run
