"""`train`, `plan` and `compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tossctr.cluster.choices import Engine
from tossctr.commands.group import hush
from tossctr.commands.options import (
    CONFIG,
    AsJson,
    Config,
    Expid,
    Force,
    Fresh,
    Gpu,
    Overrides,
    app,
    print_json,
    print_result,
)
from tossctr.config.choices import FoldMethod
from tossctr.progress import say

if TYPE_CHECKING:
    from tossctr.cluster.rank import ProcessRank
    from tossctr.config.schema import Experiment
    from tossctr.runs.run import Run


@app.command()
def train(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    gpu: Gpu = None,
    overrides: Overrides = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Number of cross-validation folds to train.")
    ] = None,
    fold_method: Annotated[
        FoldMethod, typer.Option(help="How to assign rows to folds; group: by group_id.")
    ] = "stratified",
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds for the folds (seed, seed + 1, ...).")
    ] = 1,
    engine: Annotated[
        Engine | None, typer.Option(help="Process launcher. Default: torchrun if --workers > 1.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of data-parallel processes.")] = 1,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment, or folds of it; prepare its data first if needed.

    Can also be started by torchrun or srun, for data-parallel training."""
    from tossctr.cluster.rank import find_rank
    from tossctr.families.experiment import load_experiment

    process = find_rank()
    several = process is not None or workers > 1 or engine in ("torchrun", "ray")
    if several and folds is not None:
        raise typer.BadParameter("--folds trains in one process; see docs/cluster.md")
    if engine == "local" and workers > 1:
        raise typer.BadParameter("--engine local is one process; use torchrun or ray for several")
    if process is not None:
        if workers > 1 or engine is not None:
            raise typer.BadParameter(
                "already started by torchrun or srun: omit --engine and --workers"
            )
        _train_together(
            process, partial(load_experiment, config, expid, overrides or []), gpu, fresh, as_json
        )
        return
    experiment = load_experiment(config, expid, overrides or [])
    if several:
        from tossctr.pipeline.launch import train_with

        hush(experiment.training.verbose == 0)
        chosen = engine or "torchrun"
        run = train_with(chosen, experiment, workers=workers, gpu=gpu, fresh=fresh)
        print_result(run.metrics["best"], as_json, f"best validation of {expid}")
        return
    if folds is None:
        if seeds > 1:
            raise typer.BadParameter("--seeds needs --folds; see also tossctr compare")
        run = train_experiment(experiment, gpu, fresh)
        print_result(run.metrics["best"], as_json, f"best validation of {expid}")
        return
    from tossctr.experiments.train import train_in_folds
    from tossctr.training.device import resolve_device

    hush(experiment.training.verbose == 0)
    first = experiment.training.seed
    folds_run = train_in_folds(
        experiment,
        resolve_device(gpu),
        folds=folds,
        method=fold_method,
        seeds=range(first, first + seeds),
        fresh=fresh,
    )
    print_result(folds_run.held_out_metrics, as_json, f"{expid} out of fold")


@app.command()
def plan(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    memory: Annotated[
        str | None, typer.Option(help="Memory limit, e.g. 14GB. Default: the free memory.")
    ] = None,
    gpu: Gpu = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Estimate memory, time and micro-batches of a training before it runs."""
    from tossctr.families.experiment import load_experiment

    experiment = load_experiment(config, expid, overrides or [])
    from tossctr.data.prepare import prepare as prepare_data
    from tossctr.families.registry import family_of
    from tossctr.runs.checks import check_model
    from tossctr.training.device import resolve_device
    from tossctr.training.plan import parse_bytes

    device = resolve_device(gpu)
    check_model(experiment)
    data = prepare_data(experiment.dataset)
    limit = None if memory is None else parse_bytes(memory)
    print_result(
        asdict(family_of(experiment.model).plan(experiment, data, device, limit)),
        as_json,
        f"plan of {expid}",
    )


@app.command()
def compare(
    expids: Annotated[str, typer.Option(help="Experiment ids or patterns, comma-separated.")],
    config: Config = CONFIG,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per experiment.")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="Labelled raw file. Default: the validation split.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Output folder of runs and tables.")] = Path(
        "checkpoints/compare"
    ),
    force: Force = False,
    gpu: Gpu = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train experiments with several seeds and write a table (Markdown, JSON)."""
    from tossctr.experiments import compare as comparison

    comparison.check_tables(output, force=force)
    rows = comparison.compare(
        config,
        expids.split(","),
        range(1, seeds + 1),
        output,
        data=data,
        gpu=gpu,
        overrides=overrides or [],
    )
    comparison.write_tables(rows, output, force=force)
    if as_json:
        print_json([row.as_dict() for row in rows])
    else:
        print(comparison.as_markdown(rows))


def train_experiment(experiment: Experiment, gpu: int | None, fresh: bool) -> Run:
    """Train into the experiment's run folder, as quiet as its `verbose` asks."""
    from tossctr.pipeline.train import train_experiment
    from tossctr.training.device import resolve_device

    hush(experiment.training.verbose == 0)
    return train_experiment(experiment, resolve_device(gpu), fresh=fresh)


def _train_together(
    process: ProcessRank,
    load: Callable[[], Experiment],
    gpu: int | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Train as one of several processes; rank 0 prints the result."""
    import torch

    from tossctr.cluster.errors import LOST, ErrorElsewhere, PeerLost
    from tossctr.cluster.parent import end_with_parent
    from tossctr.cluster.processes import join_processes
    from tossctr.cluster.rank import OWN_STORE
    from tossctr.pipeline.train import train_experiment
    from tossctr.training.device import device_of_process
    from tossctr.training.interruption import Stopped

    hush(process.rank > 0)
    if process.started_by_agent:
        end_with_parent(os.getppid())
    if process.shares_store:
        say(f"after a restart, processes may not find each other: set {OWN_STORE}=1 for torchrun")
    try:
        with join_processes(process, cuda=gpu != -1 and torch.cuda.is_available()) as processes:
            experiment = processes.everywhere(load)
            hush(experiment.training.verbose == 0)
            device = processes.everywhere(lambda: device_of_process(gpu, process.local_rank))
            run = train_experiment(
                experiment, device, fresh=fresh and process.restarts == 0, processes=processes
            )
    except ErrorElsewhere:
        sys.exit(2)
    except Stopped as stopped:
        if process.rank > 0:
            sys.exit(128 + stopped.number)
        raise
    except PeerLost as lost:
        say(f"{lost}; the same command resumes from the last checkpoint")
        sys.exit(LOST)
    if process.rank == 0:
        title = f"best validation of {experiment.expid}"
        print_result(run.metrics["best"], as_json, title)
