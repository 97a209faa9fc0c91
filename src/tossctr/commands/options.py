"""The application, the options that commands share, and how results are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.measure import Measurement
from rich.table import Table

from tossctr.commands.group import EXIT_CODES, CommandGroup, hush, indented
from tossctr.config.choices import Objective
from tossctr.progress import PlainConsole
from tossctr.redaction import redacted

if TYPE_CHECKING:
    from tossctr.data.executor import Executor

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Click-through-rate models on ad logs with very long behaviour sequences.",
    epilog=indented("Exit codes:", (f"{code}: {text}" for code, text in EXIT_CODES.items())),
)
stdout = PlainConsole()

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
    typer.Option(
        "--run",
        "--model",
        "--blend",
        help="Folder of a run, of folds or of a blend. Default: the run of --expid.",
    ),
]
ForObjective = Annotated[
    Objective | None,
    typer.Option(help="Objective to calibrate probabilities for. Default: the data set's."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace files at --output that TossCTR did not write.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh/--resume", help="Start over, or resume an interrupted run.")
]
RowsEngine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Backend: this process or Ray workers."),
]
RowsWorkers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Number of Ray workers, one CPU each. Default: 2."),
]
CONFIG = Path("configs")
OUTPUT = Path("data/output/submission.csv")


@app.callback()
def every_command(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", callback=hush, expose_value=False, help="Print only results and errors."
        ),
    ] = False,
) -> None:
    """Options of every command; `CommandGroup` accepts them after the command's name too."""


@contextmanager
def workers_of(
    engine: Literal["local", "ray"], workers: int | None, *, gpus: bool = False
) -> Iterator[Executor | None]:
    """The Ray workers that `--engine` and `--workers` ask for; None for this process."""
    if engine == "local":
        if workers is not None:
            raise typer.BadParameter("--workers needs --engine ray")
        yield None
        return
    from tossctr.cluster.tasks import workers as ray_workers

    with ray_workers(workers or 2, gpus=gpus) as executor:
        yield executor


def print_result(result: Mapping[str, Any], as_json: bool, title: str) -> None:
    """Print one JSON object, or a table of names and values."""
    if as_json:
        print_json(dict(result))
        return
    table = Table(title=redacted(title), show_header=False)
    for name, value in result.items():
        table.add_row(name, shown(value))
    stdout.print(table)


def print_table(table: Table) -> None:
    """Print a table at its full width, however narrow the terminal is: no number is truncated."""
    unbounded = stdout.options.update(max_width=10_000)
    table.width = Measurement.get(stdout, unbounded, table).maximum
    stdout.print(table, crop=False)


def print_json(value: Any) -> None:
    """Print one line of JSON; NaN and infinity become null."""
    print(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def metric_table(
    title: str, names: Sequence[str], columns: Mapping[str, Mapping[str, float]]
) -> Table:
    """A row per metric in `names`, a column per entry of `columns`."""
    table = Table("metric", *columns, title=title)
    for name in names:
        table.add_row(name, *(shown(values[name]) for values in columns.values()))
    return table


def shown(value: Any) -> str:
    """A value as text for a table."""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
