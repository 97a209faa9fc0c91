"""`synth`, `prepare`, `check` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tossctr.commands.options import (
    CONFIG,
    AsJson,
    Config,
    Force,
    Overrides,
    RowsEngine,
    RowsWorkers,
    app,
    print_json,
    print_result,
    stdout,
    workers_of,
)
from tossctr.interop.formats import Format
from tossctr.location import located
from tossctr.progress import say

if TYPE_CHECKING:
    from tossctr.config.schema import DatasetConfig


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Output folder.")] = Path("data/synthetic"),
    rows: Annotated[int, typer.Option(min=1, help="Training rows.")] = 100_000,
    test_rows: Annotated[int, typer.Option(min=1, help="Test rows.")] = 10_000,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed: the same seed makes the same files.")
    ] = 2024,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace files that synth did not write.")
    ] = False,
) -> None:
    """Make synthetic raw files in the Toss layout, with the true click probabilities."""
    from tossctr.data.synthetic import synthesize

    paths = synthesize(folder, rows, test_rows, seed=seed, force=force)
    for path in vars(paths).values():
        say(f"wrote {path}")


@app.command()
def prepare(
    config: Config = CONFIG,
    expid: Annotated[str | None, typer.Option(help="Experiment whose data set to prepare.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set id, instead of --expid.")] = None,
    overrides: Overrides = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh/--resume", "--force", help="Prepare again even if nothing has changed."
        ),
    ] = False,
    engine: RowsEngine = "local",
    workers: RowsWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Encode raw parquet or CSV into a training store, in bounded memory.

    The raw files may be folders of parquet or CSV files, or URLs of an object store."""
    chosen, _ = _dataset(config, expid, dataset, overrides)
    from tossctr.data.prepare import prepare as prepare_data

    with workers_of(engine, workers) as executor:
        data = prepare_data(chosen, force=fresh, executor=executor)
    rows: dict[str, Any] = {"train_rows": len(data.train), "valid_rows": len(data.valid)}
    if as_json:
        rows["unseen"] = {split: report.unseen_shares() for split, report in data.report.items()}
    print_result({"folder": str(data.folder), **rows}, as_json, f"prepared {chosen.dataset_id}")


@app.command()
def check(
    file: Annotated[
        Any,
        typer.Argument(
            parser=located,
            metavar="FILE",
            help="Raw parquet or CSV file, or the folder of a prepared data set.",
        ),
    ],
    against: Annotated[
        Any,
        typer.Option(parser=located, metavar="FILE", help="Another raw file to compare with."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report on a raw file, or verify a prepared data set.

    Of a raw file: types, missing values, ranges, lengths and, with --against, drift.

    Of a prepared data set's folder: whether its hashes and values are right."""
    if isinstance(file, Path) and (file / "prepare.json").is_file() and against is None:
        from tossctr.data.preparing.verify import verify_prepared

        rows = {f"{split}_rows": n for split, n in verify_prepared(file).items()}
        print_result({"folder": str(file), **rows}, as_json, f"{file}: verified")
        return
    from tossctr.data.health.check import check as check_file
    from tossctr.data.health.table import health_table

    found = check_file(file, against)
    if as_json:
        print_json(found.as_dict())
    else:
        stdout.print(health_table(found))


@app.command()
def export(
    form: Annotated[Format, typer.Option("--format", help="Output format.")],
    config: Config = CONFIG,
    expid: Annotated[str | None, typer.Option(help="Experiment whose data set to export.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set id, instead of --expid.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Output folder. Default: the data set's, under its data_root."),
    ] = None,
    force: Force = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Export a data set to FuxiCTR's formats, with feature_map.json and feature_vocab.json."""
    chosen, max_len = _dataset(config, expid, dataset, overrides)
    from tossctr.data.prepare import prepare as prepare_data
    from tossctr.interop.fuxictr_export import export as export_data

    data = prepare_data(chosen)
    folder = output or data.folder
    rows = export_data(data, chosen, folder, form, max_len=max_len, force=force)
    result = {"folder": str(folder), **{f"{split}_rows": n for split, n in rows.items()}}
    print_result(result, as_json, f"exported {chosen.dataset_id}")


def _dataset(
    config: Path, expid: str | None, dataset: str | None, overrides: list[str] | None
) -> tuple[DatasetConfig, int | None]:
    """The data set given by either id, and the experiment's `max_len`."""
    from tossctr.families.experiment import load_dataset, load_experiment

    match expid, dataset:
        case str(), None:
            experiment = load_experiment(config, expid, overrides or [])
            return experiment.dataset, experiment.training.max_len
        case None, str():
            return load_dataset(config, dataset, overrides or []), None
    raise typer.BadParameter("give either --expid or --dataset")
