"""Several experiments, several seeds, one table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tossctr.config.loader import load_experiment, read_experiment
from tossctr.errors import UserError
from tossctr.evaluation.metrics import METRICS
from tossctr.files import whole_file, write_json
from tossctr.progress import say


@dataclass(frozen=True)
class Row:
    """One experiment over all seeds.

    Attributes:
        metrics: (mean, standard deviation over seeds) by metric name.
        parameters: trainable numbers in the model.
        rows_per_s: training throughput, mean over seeds.
        peak_mb: largest resident memory of a training process, maximum over seeds.
    """

    expid: str
    model: str
    seeds: int
    metrics: Mapping[str, tuple[float, float]]
    parameters: int
    rows_per_s: float
    peak_mb: float


def compare(
    config: Path,
    expids: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    *,
    data: Path | None = None,
    gpu: int | None = None,
    overrides: Sequence[str] = (),
) -> list[Row]:
    """Train each experiment with each seed in a process of its own, and tabulate.

    A finished run in `folder` with the same config is taken as it is, so an interrupted
    comparison goes on where it stopped.

    Args:
        data: a labelled raw file to score; None takes the validation part, at its best epoch.

    Raises:
        UserError: a config that does not load, experiments on different data sets, a run that
            failed.
    """
    experiments = {expid: load_experiment(config, expid, overrides) for expid in expids}
    datasets = {experiment.dataset.dataset_id for experiment in experiments.values()}
    if len(datasets) > 1:
        raise UserError("only experiments on one data set can be compared", value=sorted(datasets))
    rows = []
    for expid, experiment in experiments.items():
        results = []
        for seed in seeds:
            root = folder / f"seed_{seed}"
            changed = [*overrides, f"seed={seed}", f"model_root={root.resolve()}"]
            if not _is_finished(root / expid, load_experiment(config, expid, changed)):
                say(f"{expid}, seed {seed}")
                _train(config, expid, gpu, changed)
            results.append(_result(root / expid, data, gpu))
        rows.append(_row(expid, experiment.model, results))
    return rows


def as_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, metrics as mean ± standard deviation."""
    head = ["experiment", "model", "seeds", *METRICS, "parameters", "rows/s", "peak MB"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        metrics = [f"{mean:.5f} ± {deviation:.5f}" for mean, deviation in row.metrics.values()]
        sizes = [f"{row.parameters:,}", f"{row.rows_per_s:,.0f}", f"{row.peak_mb:,.0f}"]
        cells = [row.expid, row.model, str(row.seeds), *metrics, *sizes]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(rows: Sequence[Row], folder: Path) -> None:
    """Write `compare.md` and `compare.json`."""
    write_json(folder / "compare.json", [asdict(row) for row in rows])
    with whole_file(folder / "compare.md") as temporary:
        temporary.write_text(as_markdown(rows), encoding="utf-8")


def _is_finished(run: Path, wanted: Any) -> bool:
    return (run / "run.json").exists() and read_experiment(run / "experiment.json") == wanted


def _train(config: Path, expid: str, gpu: int | None, overrides: Sequence[str]) -> None:
    _tossctr("train", "--config", str(config), "--expid", expid, *_gpu(gpu), *_set(overrides))


def _result(run: Path, data: Path | None, gpu: int | None) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if data is None:
        return {**about, "metrics": about["best"]}
    text = _tossctr("evaluate", "--run", str(run), "--data", str(data), "--json", *_gpu(gpu))
    return {**about, "metrics": json.loads(text)}


def _row(expid: str, model: str, results: Sequence[Mapping[str, Any]]) -> Row:
    def summary(name: str) -> tuple[float, float]:
        values = [result["metrics"][name] for result in results]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0

    return Row(
        expid=expid,
        model=model,
        seeds=len(results),
        metrics={name: summary(name) for name in METRICS},
        parameters=results[0]["parameters"],
        rows_per_s=statistics.fmean(result["rows_per_s"] for result in results),
        peak_mb=max(result["peak_mb"] for result in results),
    )


def _tossctr(*arguments: str) -> str:
    """Run a command in a fresh process, whose peak memory is then that run's alone."""
    done = subprocess.run(
        [sys.executable, "-m", "tossctr", *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise UserError(f"tossctr {' '.join(arguments[:5])} failed", remedy="see the lines above")
    return done.stdout


def _gpu(gpu: int | None) -> list[str]:
    return [] if gpu is None else ["--gpu", str(gpu)]


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]
