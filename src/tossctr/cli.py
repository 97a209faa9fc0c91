"""Every command: parse, call, print. Results go to stdout, progress to stderr."""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from tossctr import __version__, pipeline
from tossctr.config.loader import load_dataset, load_experiment
from tossctr.config.schema import DatasetConfig, Experiment
from tossctr.data.health import check as check_file
from tossctr.data.health_table import health_table
from tossctr.data.prepare import prepare as prepare_data
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.evaluation import compare as comparison
from tossctr.files import refused
from tossctr.interop.fuxictr_export import export as export_data
from tossctr.interop.fuxictr_files import Format
from tossctr.progress import console, say
from tossctr.training.device import resolve_device
from tossctr.training.interruption import Stopped
from tossctr.training.plan import parse_bytes
from tossctr.training.plan import plan as make_plan
from tossctr.training.run_folder import Run, load_run
from tossctr.training.trainer import check_model
from tossctr.training.trainer import train as train_model

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Click-through-rate models on ad logs with very long behaviour sequences.",
)
stdout = Console()

Config = Annotated[Path, typer.Option("--config", help="Folder of the YAML files.")]
Expid = Annotated[str, typer.Option("--expid", help="Experiment id in model_config.yaml.")]
Gpu = Annotated[
    int | None, typer.Option("--gpu", help="GPU number; -1 is the CPU. Default: GPU 0 if any.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
RunFolder = Annotated[
    Path | None,
    typer.Option("--run", "--model", help="A run's folder. Default: that of --expid."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh/--resume", help="Start over, or go on where a kill came between.")
]
CONFIG = Path("configs")
OUTPUT = Path("data/output/submission.csv")


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")] = Path("data/raw"),
    rows: Annotated[int, typer.Option(min=1, help="Train rows.")] = 100_000,
    test_rows: Annotated[int, typer.Option(min=1, help="Test rows.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 2024,
) -> None:
    """Make synthetic raw files in the Toss layout, with the true click probabilities."""
    paths = synthesize(folder, rows, test_rows, seed=seed)
    for path in vars(paths).values():
        say(f"wrote {path}")


@app.command()
def prepare(
    config: Config = CONFIG,
    expid: Annotated[str | None, typer.Option(help="Prepare this experiment's data set.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Or this data set.")] = None,
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", "--force", help="Even if nothing has changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode raw parquet or CSV into a training store, in bounded memory."""
    chosen, _ = _dataset(config, expid, dataset, overrides)
    data = prepare_data(chosen, force=fresh)
    rows = {"train_rows": len(data.train), "valid_rows": len(data.valid)}
    _print({"folder": str(data.folder), **rows}, as_json, f"prepared {chosen.dataset_id}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Raw parquet or CSV file.")],
    against: Annotated[
        Path | None, typer.Option(help="Another file to compare with: train with test.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report a raw file's health: types, missing values, ranges, lengths, drift."""
    found = check_file(file, against)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        stdout.print(health_table(found))


@app.command()
def train(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    gpu: Gpu = None,
    overrides: Overrides = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment (preparing its data first, if need be)."""
    run = _train(load_experiment(config, expid, overrides or []), gpu, fresh)
    _print(run.metrics["best"], as_json, f"best validation of {expid}")


@app.command()
def plan(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    memory: Annotated[
        str | None, typer.Option(help="Fit into this, e.g. 14GB. Default: what is free here.")
    ] = None,
    gpu: Gpu = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Predict memory and time of a training, and the parts that fit, before it runs."""
    experiment = load_experiment(config, expid, overrides or [])
    device = resolve_device(gpu)
    check_model(experiment)
    data = prepare_data(experiment.dataset)
    limit = None if memory is None else parse_bytes(memory)
    _print(asdict(make_plan(experiment, data, device, limit)), as_json, f"plan of {expid}")


@app.command()
def evaluate(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    run: RunFolder = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled raw file. Default: the validation part.")
    ] = None,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Metrics of a trained run."""
    metrics = pipeline.evaluate_run(_run(config, expid, run), data, device=resolve_device(gpu))
    _print(metrics, as_json, f"{data or 'validation'}")


@app.command()
def predict(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    run: RunFolder = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "--test_data", help="Raw test file. Default: the data set's."),
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sample submission: order and header of the output.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The submission to write.")] = OUTPUT,
    gpu: Gpu = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Score a raw test file into a submission, checked before it is written."""
    rows, report = pipeline.submit(
        _run(config, expid, run),
        data=data,
        sample=sample,
        output=output,
        device=resolve_device(gpu),
        fresh=fresh,
    )
    result = {"output": str(output), "rows": rows, "unseen": dict(report.unseen)}
    _print(result, as_json, "submission")


@app.command("run")
def run_all(
    config: Config = CONFIG,
    expid: Expid = "FESeq_toy",
    output: Annotated[
        Path | None, typer.Option(help="Default: data/output/submission.csv of the project.")
    ] = None,
    gpu: Gpu = None,
    overrides: Overrides = None,
    synth_rows: Annotated[
        int, typer.Option(min=100, help="Synthetic train rows, where there are no raw files.")
    ] = pipeline.SYNTH_TRAIN_ROWS,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """The whole road: raw files (or synthetic ones) to a checked submission."""
    experiment = load_experiment(config, expid, overrides or [])
    device = resolve_device(gpu)
    dataset = experiment.dataset
    pipeline.ensure_raw_files(
        dataset,
        seed=experiment.training.seed,
        train_rows=synth_rows,
        test_rows=max(synth_rows // 10, 1),
    )
    run = _train(experiment, gpu, fresh)
    out = output or config.resolve().parent / OUTPUT
    result: dict[str, Any] = {"validation": run.metrics["best"]}
    rows, report = pipeline.submit(
        run, data=None, sample=None, output=out, device=device, fresh=fresh
    )
    result |= {"output": str(out), "rows": rows, "unseen": dict(report.unseen)}
    truth = dataset.train_data.parent / "truth.parquet"
    if truth.exists():
        result |= pipeline.against_truth(out, truth)
    if as_json:
        print(json.dumps(result))
        return
    shown = {k: v for k, v in result.items() if k in ("validation", "submission", "ceiling")}
    stdout.print(_metric_table(f"{expid} on {dataset.dataset_id}", shown))
    stdout.print(f"submission: {out} ({rows:,} rows)", highlight=False, soft_wrap=True)


@app.command()
def compare(
    expids: Annotated[str, typer.Option(help="Experiment ids, joined by commas.")],
    config: Config = CONFIG,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds each.")] = 3,
    data: Annotated[
        Path | None, typer.Option(help="Labelled raw file. Default: the validation part.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of runs and tables.")] = Path(
        "checkpoints/compare"
    ),
    gpu: Gpu = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train experiments on the same data with several seeds; write a table (Markdown, JSON)."""
    rows = comparison.compare(
        config,
        expids.split(","),
        range(1, seeds + 1),
        output,
        data=data,
        gpu=gpu,
        overrides=overrides or [],
    )
    comparison.write_table(rows, output)
    print(json.dumps([asdict(row) for row in rows]) if as_json else comparison.as_markdown(rows))


@app.command()
def export(
    form: Annotated[Format, typer.Option("--format", help="Which files.")],
    config: Config = CONFIG,
    expid: Annotated[str | None, typer.Option(help="Export this experiment's data set.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Or this data set.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder. Default: the data set's, under its data_root.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set as FuxiCTR reads it, with feature_map.json and feature_vocab.json."""
    chosen, max_len = _dataset(config, expid, dataset, overrides)
    data = prepare_data(chosen)
    folder = output or data.folder
    rows = export_data(data, chosen, folder, form, max_len=max_len)
    result = {"folder": str(folder), **{f"{part}_rows": n for part, n in rows.items()}}
    _print(result, as_json, f"exported {chosen.dataset_id}")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _dataset(
    config: Path, expid: str | None, dataset: str | None, overrides: list[str] | None
) -> tuple[DatasetConfig, int | None]:
    """The data set that one of the two names, and the experiment's `max_len`."""
    if (expid is None) == (dataset is None):
        raise typer.BadParameter("give either --expid or --dataset")
    if dataset is not None:
        return load_dataset(config, dataset, overrides or []), None
    assert expid is not None
    experiment = load_experiment(config, expid, overrides or [])
    return experiment.dataset, experiment.training.max_len


def _train(experiment: Experiment, gpu: int | None, fresh: bool) -> Run:
    console.quiet = experiment.training.verbose == 0
    device = resolve_device(gpu)
    check_model(experiment)
    data = prepare_data(experiment.dataset)
    return train_model(experiment, data, device, pipeline.run_folder(experiment), fresh=fresh)


def _run(config: Path, expid: str, run: Path | None) -> Run:
    return load_run(run or pipeline.run_folder(load_experiment(config, expid)))


def _print(result: Mapping[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(dict(result)))
        return
    table = Table(title=title, show_header=False)
    for name, value in result.items():
        table.add_row(name, _shown(value))
    stdout.print(table)


def _metric_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("metric", *columns, title=title)
    for name in ("AUC", "logloss", "AP", "WLL", "competition_score"):
        table.add_row(name, *(_shown(values[name]) for values in columns.values()))
    return table


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _fail(error: UserError) -> NoReturn:
    text = f"error: {error.line()}"
    console.quiet = False  # which `verbose: 0` made it
    console.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """User errors are one line and exit code 2; a signal N ends with 128 + N."""
    # As an exception, SIGTERM passes through what cleans up, as SIGINT does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise  # not about a file: a bug
        _fail(refused(error, "the system refuses", None))
    except Stopped as stopped:
        say(str(stopped))
        sys.exit(128 + stopped.number)
    except KeyboardInterrupt:
        say("interrupted: earlier results are as they were")
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; `arguments` of None are those of the process."""
    with one_line_errors():
        app(arguments)
