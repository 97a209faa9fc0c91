"""`blend` and `leaderboard`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tossctr.commands.options import AsJson, ForObjective, Gpu, app, print_json, print_table, stdout
from tossctr.config.choices import Method

Root = Annotated[Path, typer.Option("--root", help="Folder of runs (model_root).")]
ROOT = Path("checkpoints")


@app.command()
def blend(
    runs: Annotated[
        str,
        typer.Option(help="Runs or folders, comma-separated; a run's folds if they are finished."),
    ],
    root: Root = ROOT,
    output: Annotated[
        Path | None, typer.Option(help="Output folder. Default: blend in --root.")
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="Method. Default: the simplest within a standard error of the best."),
    ] = None,
    objective: ForObjective = None,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Blend runs by their held-out predictions and print the cross-validated gain."""
    from tossctr.calibration.objectives import AIMS
    from tossctr.experiments import blend as blending
    from tossctr.experiments.predictors import load_predictor
    from tossctr.inference.calibrator import calibrator_of
    from tossctr.training.device import resolve_device

    names = [name.strip() for name in runs.split(",")]
    paths = {name: Path(name) if Path(name).exists() else root / name for name in names}
    members = {name: load_predictor(path, prefer_folds=True) for name, path in paths.items()}
    folder = output or root / "blend"
    device = resolve_device(gpu)
    result = blending.blend(members, folder, device, method=method, objective=objective)
    calibrator_of(load_predictor(folder), result.objective, device)
    if as_json:
        content = result.model_dump()
        del content["combination"]["knots"]  # long, and in blend.json
        print_json({"folder": str(folder), **content})
        return
    aim = AIMS[result.objective]
    table = Table("", *aim.scores, title="out of fold, mean ± standard deviation over folds")
    for name, scores in (*result.singles.items(), *result.methods.items()):
        table.add_row(name, *(f"{s.mean:.6f} ± {s.std:.6f}" for s in scores.values()))
    print_table(table)
    combination, gain = result.combination, result.gain[aim.metric]
    weights = ", ".join(
        f"{name} {weight:.3f}" for name, weight in zip(members, combination.weights, strict=True)
    )
    better = "better" if aim.sign * gain.mean > 0 else "not better"
    stdout.print(
        f"{combination.method} ({weights}): {aim.metric} {gain.mean:+.6f} ± {gain.std:.6f} "
        f"compared with {result.best_single}: {better}\nblend: {folder}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def leaderboard(root: Root = ROOT, as_json: AsJson = False) -> None:
    """List all finished runs, folds and blends, best first within each objective."""
    from tossctr.calibration.objectives import AIMS
    from tossctr.experiments.leaderboard import leaderboard as read_leaderboard

    entries = read_leaderboard(root)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    head = (
        "run",
        "kind",
        "model",
        "config",
        "data",
        "seeds",
        "metric",
        "value",
        "AUC",
        "AP",
        "CV AP",
    )
    table = Table(
        *head, "rows/s", "MB", title="value: the metric after calibration for the objective"
    )
    for e in entries:
        ap = (e.cross_validated or {}).get("AP")
        table.add_row(
            e.name, e.kind, e.model, e.config, e.data, ",".join(map(str, e.seeds)),
            AIMS[e.objective].metric, "-" if e.score is None else f"{e.score:.6f}",
            f"{e.metrics['AUC']:.6f}", f"{e.metrics['AP']:.6f}",
            "-" if ap is None else f"{ap.mean:.4f} ± {ap.std:.4f}",
            "-" if e.rows_per_s is None else f"{e.rows_per_s:,.0f}", f"{e.megabytes:.1f}",
        )  # fmt: skip
    print_table(table)
