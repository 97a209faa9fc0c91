"""`evaluate`, `predict` and `run`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tossctr.commands.group import hush
from tossctr.commands.options import (
    CONFIG,
    OUTPUT,
    AsJson,
    Config,
    Expid,
    Force,
    ForObjective,
    Fresh,
    Gpu,
    Overrides,
    RowsEngine,
    RowsWorkers,
    RunFolder,
    app,
    metric_table,
    print_json,
    print_result,
    stdout,
    workers_of,
)
from tossctr.commands.report import REPORT, report_beside
from tossctr.commands.training import train_experiment
from tossctr.config.choices import Objective
from tossctr.errors import UserError
from tossctr.location import beside, located
from tossctr.progress import peak_mb, say

if TYPE_CHECKING:
    from tossctr.config.schema import DatasetConfig
    from tossctr.inference.predictor import Predictor

SYNTH_TRAIN_ROWS = 60_000


@app.command()
def evaluate(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    run: RunFolder = None,
    data: Annotated[
        Any,
        typer.Option(
            parser=located,
            metavar="PATH|URL",
            help="Labelled raw file. Default: the validation split.",
        ),
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="Objective to calibrate predictions for; raw: no calibration.")
    ] = "raw",
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Compute metrics of a run, of folds or of a blend."""
    from tossctr.pipeline.evaluate import evaluate_run
    from tossctr.training.device import resolve_device

    chosen, _ = chosen_run(config, expid, run)
    device = resolve_device(gpu)
    metrics = evaluate_run(chosen, data, device=device, objective=objective)
    print_result(metrics, as_json, f"{data or 'validation'}")


@app.command()
def predict(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    run: RunFolder = None,
    data: Annotated[
        Any,
        typer.Option(
            "--data",
            "--test_data",
            parser=located,
            metavar="PATH|URL",
            help="Raw test file, or a folder of parquet files. Default: the data set's.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="Sample submission that sets the order and header of the output."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Submission file.")] = OUTPUT,
    objective: ForObjective = None,
    force: Force = False,
    gpu: Gpu = None,
    fresh: Fresh = False,
    engine: RowsEngine = "local",
    workers: RowsWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Predict a raw test file and write a submission, which is checked first."""
    from tossctr.outputs import is_standard_output
    from tossctr.pipeline.submit import submit
    from tossctr.training.device import resolve_device

    if engine == "ray" and gpu is not None and gpu >= 0:
        raise typer.BadParameter("Ray assigns the GPUs: omit --gpu, or give -1 for the CPU")
    chosen, dataset = chosen_run(config, expid, run)
    device = resolve_device(gpu)
    if dataset is not None:
        objective = objective or dataset.objective
    with workers_of(engine, workers, gpus=device.type == "cuda") as executor:
        rows, report = submit(
            chosen,
            data=data,
            sample=sample,
            output=output,
            device=device,
            dataset=dataset,
            fresh=fresh,
            objective=objective,
            executor=executor,
            force=force,
        )
    result = {"output": str(output), "rows": rows, "unseen": report.unseen_shares()}
    if is_standard_output(output):
        say(f"{rows:,} rows written to {output}")  # to stderr, as the output holds rows only
    else:
        print_result(result, as_json, "submission")


@app.command("run")
def run_all(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe id in recipes.yaml: a blend of several experiments."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Submission file. Default: data/output/submission.csv.")
    ] = None,
    gpu: Gpu = None,
    overrides: Overrides = None,
    synth_rows: Annotated[
        int, typer.Option(min=100, help="Synthetic training rows, if there are no raw files.")
    ] = SYNTH_TRAIN_ROWS,
    objective: ForObjective = None,
    force: Force = False,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html next to the submission.")
    ] = True,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Run all steps, from raw files (or synthetic ones) to a checked submission."""
    start = time.monotonic()
    from tossctr.experiments.recipe import load_recipe
    from tossctr.families.experiment import load_experiment

    several = None if recipe is None else load_recipe(config, recipe, overrides or [])
    experiment = (
        several.experiments[0] if several else load_experiment(config, expid, overrides or [])
    )
    from tossctr.calibration.objectives import AIMS
    from tossctr.data.raw_files import ensure_raw_files
    from tossctr.experiments.train import train_recipe
    from tossctr.outputs import check_output, is_stream
    from tossctr.pipeline.submit import against_truth, submit
    from tossctr.training.device import resolve_device

    device = resolve_device(gpu)
    dataset = experiment.dataset
    out = output or config.resolve().parent / OUTPUT
    if is_stream(out):
        raise UserError(
            "is not a regular file, but run reads the submission back",
            file=out,
            key="--output",
            remedy="give a file; predict can write to a pipe",
        )
    truth = beside(dataset.train_data, "truth.parquet")
    inputs = [*dataset.files, *([] if truth is None else [truth])]
    for path in (out, *([out.with_name(REPORT)] if with_report else [])):
        check_output(path, inputs=inputs, force=force)  # before hours of training
    objective = objective or dataset.objective
    ensure_raw_files(
        dataset,
        seed=experiment.training.seed,
        train_rows=synth_rows,
        test_rows=max(synth_rows // 10, 1),
    )
    run: Predictor
    result: dict[str, Any] = {}
    if several is None:
        run = train_experiment(experiment, gpu, fresh)
        result["validation"] = run.metrics["best"]
    else:
        hush(experiment.training.verbose == 0)
        run = train_recipe(several, device, fresh=fresh)
        result["out of fold"] = run.held_out_metrics
    rows, report = submit(
        run,
        data=None,
        sample=None,
        output=out,
        device=device,
        dataset=dataset,
        fresh=fresh,
        objective=objective,
        force=force,
    )
    result |= {"output": str(out), "rows": rows, "unseen": report.unseen_shares()}
    if truth is not None and truth.exists():
        result |= against_truth(out, truth)
    if with_report:
        result["report"] = str(report_beside(out, run, device, force=force))
    if as_json:
        print_json(result)
        return
    scored = ("validation", "out of fold", "submission", "ceiling")
    shown = {name: result[name] for name in scored if name in result}
    names = tuple(dict.fromkeys([*AIMS[objective].scores, "logloss"]))
    stdout.print(metric_table(f"{recipe or expid} on {dataset.dataset_id}", names, shown))
    if "submission" in shown and objective == "competition_score":
        stdout.print("Submitted probabilities are for balanced classes, as the score requires.")
    closing = {"submission": f"{out} ({rows:,} rows)", "report": result.get("report")}
    closing |= {"run": str(run.folder), "time": f"{time.monotonic() - start:,.0f} s"}
    closing |= {"peak memory": f"{peak_mb():,.0f} MB"}
    for name, text in closing.items():
        if text is not None:
            stdout.print(f"{name}: {text}", highlight=False, soft_wrap=True)


def chosen_run(
    config: Path, expid: str, run: Path | None
) -> tuple[Predictor, DatasetConfig | None]:
    """The predictor in the folder `run`; if None, the experiment's run, with its data set as the
    config describes it now."""
    from tossctr.experiments.predictors import load_predictor
    from tossctr.families.experiment import load_experiment
    from tossctr.pipeline.train import run_folder

    if run is not None:
        return load_predictor(run), None
    experiment = load_experiment(config, expid)
    return load_predictor(run_folder(experiment)), experiment.dataset
