"""`train`: an experiment and prepared data become a run's folder."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.schema import Experiment
from tossctr.data.prepare import Prepared
from tossctr.families.registry import family_of
from tossctr.files import locked, sha256_of
from tossctr.progress import say
from tossctr.runs.checks import check_model, check_monitor
from tossctr.runs.mlflow_log import log_run
from tossctr.runs.run import Run
from tossctr.runs.run_folder import RunWriter, load_run
from tossctr.training.device import keep_freed_memory
from tossctr.training.family import Fit


def train(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    folder: Path,
    *,
    fresh: bool = False,
    memory: float | None = None,
    after_validation: Callable[[int, float], None] | None = None,
    keep: Callable[[Run], None] | None = None,
    processes: Processes = ALONE,
) -> Run:
    """Train to the end of patience or epochs and keep the best weights.

    A training that was cut short goes on from its last checkpoint, to the same end as if it had not
    been; on SIGINT and SIGTERM it keeps one more and stops. Several processes share each batch and
    take the same steps; the first one writes. Any number of them goes on from a checkpoint.

    Args:
        experiment: what to train and how.
        data: the prepared stores of its data set.
        device: where to train.
        folder: where the run goes. A finished run of the same training there is returned; any
            other is kept under another name (`<folder>.1`) once this one is whole.
        fresh: start over.
        memory: bytes to fit into; None takes a GPU's free ones, and on a CPU counts nothing.
        after_validation: called after each with its number, from 0, and the monitor; what it raises
            ends the training.
        keep: called with the whole run by the first process; what it writes to the run's folder is
            there as soon as the run is in its place.
        processes: those that train together, each calling this; the run folder is one that all see.

    Returns:
        The run, loaded back from its folder with the best weights.

    Raises:
        UserError: settings that do not fit the data, a loss or monitor that is not finite, another
            process at work in the folder, a folder that is no run, a disk that refuses, what
            several processes cannot train.
        Stopped: a signal asked for it.
        PeerLost: another of the processes has ended.
    """
    processes.everywhere(lambda: check_model(experiment, processes.world_size))
    if device.type == "cpu":
        keep_freed_memory()
    with ExitStack() as stack:
        lock = locked(folder.with_name(f".{folder.name}.lock"), f"the run folder {folder}")
        processes.first(lambda: stack.enter_context(lock))
        config = experiment.training
        features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
        writer = RunWriter(folder)
        processes.first(
            lambda: writer.begin(
                experiment, data.encoder, features, data=rows_of(data), fresh=fresh
            )
        )
        writer.folder = folder.with_name(processes.broadcast(writer.folder.name))
        there = processes.broadcast(writer.finished)
        if there:
            say(f"{experiment.expid}: this training is finished (--fresh trains again)")
        else:
            train_rows = replace(data.train, features=features)
            valid_rows = replace(data.valid, features=features)
            processes.everywhere(lambda: check_monitor(config, valid_rows))
            metrics = family_of(experiment.model).fit(
                experiment,
                train_rows,
                valid_rows,
                writer,
                Fit(device, memory, after_validation, processes),
            )
            processes.first(lambda: writer.finish({**metrics, "peak_mb": _peak_mb(device)}))

        def place() -> None:
            if keep is not None:
                keep(load_run(writer.folder))
            if writer.folder != folder:
                writer.place()

        processes.first(place)
        # A finished run found there may have been trained where other paths lead to the same data.
        run = replace(processes.everywhere(lambda: load_run(folder)), experiment=experiment)
        if config.mlflow_uri is not None and not there:
            processes.first(lambda: log_run(str(config.mlflow_uri), experiment, run.metrics))
        return run


def rows_of(data: Prepared) -> dict[str, Any]:
    """Which rows these are: their number, and the hash of the manifest that holds their hashes."""
    described: dict[str, Any] = {}
    for part, rows in (("train", data.train), ("valid", data.valid)):
        manifest = data.folder / part / "manifest.json"
        described[part] = [len(rows), sha256_of(manifest) if manifest.is_file() else None]
    return described


def _peak_mb(device: torch.device) -> float:
    """Largest memory of this process so far, in MB: the GPU's where one is used."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
