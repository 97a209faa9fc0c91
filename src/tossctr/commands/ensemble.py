"""Commands on finished runs: blend them, and see them all in one table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tossctr.commands.options import AsJson, Gpu, app, stdout
from tossctr.ensemble import blend as blending
from tossctr.ensemble.combination import Method
from tossctr.ensemble.opening import open_scorer
from tossctr.training.device import resolve_device

Root = Annotated[Path, typer.Option("--root", help="Folder of runs (model_root).")]
ROOT = Path("checkpoints")


@app.command()
def blend(
    runs: Annotated[
        str, typer.Option(help="Runs or folders, joined by commas; folds where they are finished.")
    ],
    root: Root = ROOT,
    output: Annotated[
        Path | None, typer.Option(help="The blend's folder. Default: blend in --root.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="Default: the simplest that is as good as the best.")
    ] = None,
    gpu: Gpu = None,
    as_json: AsJson = False,
) -> None:
    """Blend runs on their held-out predictions; the gain is cross-validated."""
    names = [name.strip() for name in runs.split(",")]
    paths = {name: Path(name) if Path(name).exists() else root / name for name in names}
    members = {name: open_scorer(path, prefer_folds=True) for name, path in paths.items()}
    folder = output or root / "blend"
    result = blending.blend(members, folder, resolve_device(gpu), method=method)
    if as_json:
        print(json.dumps({"folder": str(folder), **_as_dict(result)}))
        return
    table = Table("", *blending.SCORES, title="out of fold, mean ± standard deviation over folds")
    for name, scores in {**result.singles, **result.methods}.items():
        table.add_row(name, *(f"{s.mean:.6f} ± {s.std:.6f}" for s in scores.values()))
    stdout.print(table)
    combination, gain = result.combination, result.gain["competition_score"]
    weights = ", ".join(
        f"{name} {weight:.3f}" for name, weight in zip(members, combination.weights, strict=True)
    )
    stdout.print(
        f"{combination.method} ({weights}): score {gain.mean:+.6f} ± {gain.std:.6f} over "
        f"{result.best_single}\nblend: {folder}",
        highlight=False,
        soft_wrap=True,
    )


def _as_dict(result: blending.BlendResult) -> dict[str, Any]:
    content = asdict(result)
    del content["combination"]["knots"]  # a thousand numbers that are in blend.json
    return content
