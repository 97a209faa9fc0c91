"""An experiment trained in one call: its data prepared, its held-out predictions kept."""

from __future__ import annotations

from pathlib import Path

import torch

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.schema import Experiment
from tossctr.data.prepare import open_prepared, prepare
from tossctr.inference.held_out import calibrator as fit_calibrator
from tossctr.inference.held_out import held_out_file, keep_validation
from tossctr.progress import say
from tossctr.runs.checks import check_model
from tossctr.runs.run_folder import Run
from tossctr.runs.train import train


def run_folder(experiment: Experiment) -> Path:
    """Where an experiment's run is kept: `<model_root>/<expid>`."""
    return experiment.training.model_root / experiment.expid


def train_experiment(
    experiment: Experiment,
    device: torch.device,
    *,
    fresh: bool = False,
    processes: Processes = ALONE,
) -> Run:
    """Prepare what is needed, train into `run_folder`, and keep the validation part's predictions
    there, with the calibrator for the data set's objective that is fit on them. Of several
    processes, the first one prepares and keeps; the others open what it made."""
    processes.everywhere(lambda: check_model(experiment, processes.world_size))
    dataset = experiment.dataset
    data = processes.first_then(lambda: prepare(dataset), others=lambda: open_prepared(dataset))

    def keep(run: Run) -> None:
        if not held_out_file(run).is_file():
            keep_validation(run, data, device)
        fit_calibrator(run, dataset.objective, device)

    run = train(
        experiment,
        data,
        device,
        run_folder(experiment),
        fresh=fresh,
        keep=keep,
        processes=processes,
    )
    processes.first(lambda: say(f"run kept in {run.folder}"))
    return run
