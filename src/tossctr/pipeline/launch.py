"""`tossctr train --workers N`: starts the processes, by torch's elastic agent or by Ray Train.

If one is lost, both restart all processes, and training resumes from the last checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tossctr.cluster.choices import Engine
from tossctr.cluster.errors import LOST, PeerLost
from tossctr.cluster.parent import STOP_SECONDS, end_with_parent
from tossctr.cluster.processes import ALONE, join_processes
from tossctr.cluster.rank import OWN_STORE, ProcessRank, find_rank
from tossctr.cluster.tasks import connected
from tossctr.config.schema import Experiment
from tossctr.errors import UserError
from tossctr.files import locked, write_json
from tossctr.folders import mark, remove_made
from tossctr.pipeline.train import run_folder, train_experiment
from tossctr.progress import console, say
from tossctr.runs.checks import check_model
from tossctr.runs.run import Run
from tossctr.runs.run_folder import RunWriter, load_run
from tossctr.training.device import device_of_process
from tossctr.training.interruption import Stopped

MAX_RESTARTS = 3  # of all processes, each because one was lost
# A process that lost a peer exits this much later: the agent reports the first one that ended.
CAUSE_SECONDS = 5
OUTCOME = "outcome.json"  # written by rank 0 of Ray's processes
_LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class _Job:
    """What each process is to do; `launcher` is the process id of the one that started it."""

    experiment: Experiment
    gpu: int | None
    quiet: bool
    launcher: int


def train_with(
    engine: Engine, experiment: Experiment, *, workers: int, gpu: int | None, fresh: bool
) -> Run:
    """Train an experiment with `workers` processes, on this machine (`torchrun`) or on Ray's
    cluster (`ray`).

    Raises:
        UserError: training fails, the model cannot be trained by several processes, the engine is
            not installed, or processes are lost more than `MAX_RESTARTS` times.
        Stopped: a signal asked to stop.
    """
    check_model(experiment, workers)
    folder = run_folder(experiment)
    if fresh:  # only here: restarted processes have to resume
        lock = folder.with_name(f".{folder.name}.lock")
        with locked(lock, f"the run folder {folder}"):
            RunWriter(folder).request_fresh()
    job = _Job(experiment, gpu, console.quiet, os.getpid())
    outcome = (_with_ray if engine == "ray" else _with_torchrun)(job, workers)
    if "error" in outcome:
        raise UserError(outcome["error"])
    if "stopped" in outcome:
        raise Stopped(outcome["stopped"], outcome["message"])
    return load_run(folder)


def _work(job: _Job, process: ProcessRank | None) -> dict[str, Any]:
    """Train as one of several processes; returns the outcome as a JSON object."""
    console.quiet = job.quiet or (process is not None and process.rank > 0)
    cuda = job.gpu != -1 and torch.cuda.is_available()
    try:
        if process is None:
            device = device_of_process(job.gpu, 0)
            train_experiment(job.experiment, device, processes=ALONE)
            return {}
        with join_processes(process, cuda=cuda) as processes:
            if processes.restarts:
                say(f"a process was lost: all restarted ({processes.restarts} of {MAX_RESTARTS})")
            device = processes.everywhere(lambda: device_of_process(job.gpu, processes.local_rank))
            train_experiment(job.experiment, device, processes=processes)
            return {}
    except UserError as error:
        return {"error": error.line()}
    except Stopped as stopped:
        return {"stopped": int(stopped.number), "message": str(stopped)}


def _torchrun_worker(job: _Job) -> dict[str, Any]:
    end_with_parent(job.launcher)
    try:
        outcome = _work(job, find_rank())
        if os.getppid() != job.launcher:  # torch would wait for the launcher to read the outcome
            sys.exit(LOST)
        return outcome
    except PeerLost:
        time.sleep(CAUSE_SECONDS)
        sys.exit(LOST)


def _with_torchrun(job: _Job, workers: int) -> dict[str, Any]:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ[OWN_STORE] = "1"
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_one_line)
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=workers,
            run_id=f"{job.experiment.expid}-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint=f"{_LOCALHOST}:0",
            local_addr=_LOCALHOST,
            max_restarts=MAX_RESTARTS,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            shutdown_timeout=int(STOP_SECONDS),
        )
        try:
            outcomes = elastic_launch(config, _torchrun_worker)(job)
        except SignalException as stopped:
            raise Stopped(
                int(stopped.sigval), "stopped: the same command resumes from the last checkpoint"
            ) from None
        except ChildFailedError as error:
            codes = sorted({f.exitcode for f in error.failures.values()} - {LOST}) or [LOST]
            raise UserError(
                f"a process was lost {MAX_RESTARTS + 1} times",
                value=", ".join(_exit(code) for code in codes),
                remedy="see its messages above; the same command resumes from the last checkpoint",
            ) from None
    return dict(outcomes[0])


def _one_line(record: logging.LogRecord) -> bool:
    """Log a lost process's rank and exit code without a traceback."""
    record.exc_info = None
    return True


def _exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _with_ray(job: _Job, workers: int) -> dict[str, Any]:
    with connected(workers, show_logs=not job.quiet):
        return _in_cluster(job, workers)


def _in_cluster(job: _Job, workers: int) -> dict[str, Any]:
    import ray
    from ray import train
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    here = Path.cwd()
    # Ray's own files.
    storage = job.experiment.training.model_root / f".{job.experiment.expid}.ray"
    remove_made(storage, "ray")
    mark(storage, "ray")

    def work() -> None:
        os.chdir(here)  # Ray starts each worker in another folder
        context = train.get_context()
        process = ProcessRank(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            local_rank=context.get_local_rank(),
            address="",  # Ray has initialised the group
            port=0,
            restarts=0,
        )
        outcome = _work(job, process if process.world_size > 1 else None)
        if process.rank == 0:
            write_json(storage / OUTCOME, outcome)

    gpus = job.gpu != -1 and ray.cluster_resources().get("GPU", 0) > 0
    trainer = TorchTrainer(
        work,
        scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=train.RunConfig(
            name=job.experiment.expid,
            storage_path=str(storage),
            failure_config=train.FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    try:
        trainer.fit()
        return dict(json.loads((storage / OUTCOME).read_bytes()))
    except TrainingFailedError as error:
        raise UserError(
            f"a process was lost {MAX_RESTARTS + 1} times: {error}",
            remedy="the same command resumes from the last checkpoint",
        ) from error
    finally:
        remove_made(storage, "ray")
