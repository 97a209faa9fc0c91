"""`tossctr tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    print_result,
)
from tossctr.errors import UserError


@app.command()
def tune(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    space: Annotated[
        Path | None, typer.Option(help="Search space. Default: tune/<model>.yaml of --config.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Total number of trials.")] = 20,
    output: Annotated[
        Path | None, typer.Option(help="Output folder. Default: <model_root>/tune/<expid>.")
    ] = None,
    force: Force = False,
    gpu: Gpu = None,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Tune an experiment's hyperparameters.

    The same command resumes the study. Several processes can run it at the same time."""
    from tossctr.families.experiment import load_experiment

    experiment = load_experiment(config, expid, overrides or [])
    try:
        from tossctr.tuning.result import check_results, write_result
        from tossctr.tuning.space import read_space
        from tossctr.tuning.study import Search
    except ModuleNotFoundError as error:
        raise UserError(
            "tune needs Optuna", value=error.name, remedy="pip install 'tossctr[tune]'"
        ) from error
    from tossctr.data.prepare import prepare as prepare_data
    from tossctr.runs.checks import check_model
    from tossctr.training.device import resolve_device

    hush(experiment.training.verbose == 0)
    dimensions = read_space(space or config / "tune" / f"{experiment.model}.yaml", experiment)
    check_model(experiment)
    device = resolve_device(gpu)
    data = prepare_data(experiment.dataset)
    folder = output or experiment.training.model_root / "tune" / expid
    search = Search(config, expid, overrides or [], dimensions, folder, fresh=fresh)
    check_results(search, force=force)
    search.run(trials, data, device)
    result = write_result(search, force=force)
    shown = {
        "trials": len(result["trials"]),
        **(result["best"] or {"value": None}),
        "experiment": result["experiment"],
    }
    print_result(result if as_json else shown, as_json, f"best of {expid}")
