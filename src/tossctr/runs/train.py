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

    An interrupted training resumes from its last checkpoint, to the same weights as without the
    interruption; SIGINT and SIGTERM write another checkpoint and stop. Several processes share each
    batch and take the same steps; the first one writes. Any number of processes can resume.

    Args:
        experiment: what to train and how.
        data: the prepared stores of its data set.
        device: where to train.
        folder: of the run. If it is a finished run of the same training, that is returned; any
            other is kept under another name (`<folder>.1`) once this one is complete.
        fresh: start over.
        memory: bytes that the training may use; None: a GPU's free memory, on a CPU no limit.
        after_validation: called after each validation with its number, from 0, and the monitor; an
            exception that it raises ends the training.
        keep: called with the complete run by the first process, before the run's folder gets its
            final name; it may write to the folder.
        processes: the processes that train together, each calling this with a shared `folder`.

    Returns:
        The run, loaded back from its folder with the best weights.

    Raises:
        UserError: settings that do not fit the data, a loss or monitor that is not finite, a folder
            that is in use or not a run, a write that failed, what several processes cannot train.
        Stopped: on a signal.
        PeerLost: another process has ended.
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
        is_finished = processes.broadcast(writer.finished)
        if is_finished:
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
        # A finished run may have been trained with other paths to the same data.
        run = replace(processes.everywhere(lambda: load_run(folder)), experiment=experiment)
        if config.mlflow_uri is not None and not is_finished:
            processes.first(lambda: log_run(str(config.mlflow_uri), experiment, run.metrics))
        return run


def rows_of(data: Prepared) -> dict[str, Any]:
    """The number of rows of each split, and the hash of its manifest, which holds their hashes."""
    described: dict[str, Any] = {}
    for part, rows in (("train", data.train), ("valid", data.valid)):
        manifest = data.folder / part / "manifest.json"
        described[part] = [len(rows), sha256_of(manifest) if manifest.is_file() else None]
    return described


def _peak_mb(device: torch.device) -> float:
    """Peak memory of this process in MB, of the GPU if one is used."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
