"""Compare experiments over several seeds."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tossctr.artefact import read_artefact
from tossctr.config.entries import entry_ids
from tossctr.config.schema import Experiment
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment, overrides_by_experiment, read_experiment
from tossctr.folders import made_from_of
from tossctr.metrics.registry import default_metrics
from tossctr.metrics.uncertainty import MeanStd
from tossctr.outputs import check_output, output_file
from tossctr.printable import printable
from tossctr.progress import say
from tossctr.runs.marker import TrainingMetrics

TABLE, DATA = "compare.md", "compare.json"


@dataclass(frozen=True)
class Row:
    """One experiment over all seeds.

    Attributes:
        metrics: over the seeds, by metric name.
        values: of each seed, by metric name.
        parameters: number of trainable parameters.
        rows_per_s: training throughput, mean over seeds.
        peak_mb: peak memory of a training process (of the GPU if it uses one), maximum over seeds.
    """

    expid: str
    model: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, MeanStd]
    values: Mapping[str, Sequence[float]]
    parameters: int
    rows_per_s: float
    peak_mb: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the values of each seed next to their mean and standard deviation."""
        content = asdict(self)
        values = content.pop("values")
        for name, metric in self.metrics.items():
            content["metrics"][name] = {
                "mean": metric.mean, "std": metric.std, "values": list(values[name]),
            }  # fmt: skip
        return content


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
    """Train each experiment with each seed in a separate process, and tabulate.

    Runs go to `<folder>/seed_<seed>/<expid>`. Finished runs of the same config and data are reused,
    so an interrupted comparison can be resumed.

    Args:
        config: folder of the YAML files.
        expids: experiment ids, or patterns such as `FESeq_*`.
        seeds: for weights and batches; all train on the same rows.
        folder: where the runs go.
        data: a labelled raw file to evaluate on; None takes the best validation of each training.
        gpu: as for `tossctr train`.
        overrides: `key=value`, for each experiment whose model has the key.

    Raises:
        UserError: a config that does not load, a pattern without a match, experiments on
            different rows, a run that failed.
    """
    given = overrides_by_experiment(config, matching_experiments(config, expids), overrides)
    experiments = {e: load_experiment(config, e, given[e]) for e in given}
    first, *others = experiments.values()
    for other in others:
        key = first.dataset.rows_differ(other.dataset)
        if key is not None:
            raise UserError(
                f"{other.expid} and {first.expid} cannot be compared: their {key} differ",
                value=getattr(other.dataset, key), remedy="choose experiments on the same rows",
            )  # fmt: skip
    # Before the trainings, so that their peak memory does not include preparing.
    for expid in {e.dataset.dataset_id: expid for expid, e in experiments.items()}.values():
        run_command("prepare", "--expid", expid, "--config", str(config), *_set(given[expid]))

    gpu_option = [] if gpu is None else ["--gpu", str(gpu)]
    runs: dict[str, list[Path]] = {expid: [] for expid in experiments}
    for seed in seeds:
        root = folder.resolve() / f"seed_{seed}"
        own = [f"seed={seed}", f"model_root={json.dumps(str(root))}"]
        for expid in experiments:
            chosen = [*given[expid], *own]
            wanted = load_experiment(config, expid, chosen)
            if not _is_finished(root / expid, wanted):
                say(f"{expid}, seed {seed}")
                run_command(
                    "train", "--expid", expid, "--config", str(config), *_set(chosen), *gpu_option
                )
            runs[expid].append(root / expid)

    # After all trainings: a child's peak memory starts at that of this process.
    return [
        _row(experiments[expid], seeds, [_result(run, data, gpu) for run in of_seeds])
        for expid, of_seeds in runs.items()
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, with metrics as mean ± standard deviation over seeds."""
    head = ["experiment", "model", "seeds", *default_metrics(), "parameters", "rows/s", "peak MB"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        metrics = [
            f"{metric.mean:.4f}" + f" ± {metric.std:.4f}" * (len(row.seeds) > 1)
            for metric in row.metrics.values()
        ]
        sizes = [f"{row.parameters:,}", f"{row.rows_per_s:,.0f}", f"{row.peak_mb:,.0f}"]
        names = [printable(name).replace("|", "\\|") for name in (row.expid, row.model)]
        cells = [*names, str(len(row.seeds)), *metrics, *sizes]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def check_tables(folder: Path, *, force: bool = False) -> None:
    """Raises:
    UserError: a table in `folder` that TossCTR did not write, unless `force`.
    """
    for name in (TABLE, DATA):
        check_output(folder / name, force=force)


def write_tables(rows: Sequence[Row], folder: Path, *, force: bool = False) -> None:
    """Write `compare.md` and `compare.json`."""
    content = json.dumps([row.as_dict() for row in rows], indent=1, ensure_ascii=False)
    for name, text in ((DATA, content + "\n"), (TABLE, as_markdown(rows))):
        with output_file(check_output(folder / name, force=force), force=force) as temporary:
            temporary.write_text(text, encoding="utf-8")


def matching_experiments(config: Path, patterns: Sequence[str]) -> list[str]:
    """The ids of `model_config.yaml` that match, each once.

    Raises:
        UserError: a pattern without a match.
    """
    known = entry_ids(config, "model_config")
    chosen: list[str] = []
    for pattern in patterns:
        if any(character in pattern for character in "*?["):
            found = [expid for expid in known if fnmatchcase(expid, pattern)]
        else:
            found = [pattern]  # refused where it is loaded
        if not found:
            raise UserError(
                "matches no experiment",
                file="--expids",
                value=pattern,
                remedy="see model_config.yaml",
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _is_finished(run: Path, wanted: Experiment) -> bool:
    """Whether a run is finished, of this config, and trained on the data as now prepared."""
    from tossctr.data.prepare import open_prepared
    from tossctr.runs.train import rows_of

    made_from = made_from_of(run, "run")
    try:
        return (
            (run / "run.json").exists()
            and isinstance(made_from, dict)
            and read_experiment(run / "experiment.json") == wanted
            and made_from.get("data") == rows_of(open_prepared(wanted.dataset))
        )
    except UserError:
        return False  # of an older version, or damaged


def _result(run: Path, data: Path | None, gpu: int | None) -> dict[str, Any]:
    """`metrics.json` of a run, and as `metrics` those on `data` or of its best validation."""
    about = read_artefact(run / "metrics.json", TrainingMetrics).model_dump(exclude_none=True)
    if data is None:
        return {**about, "metrics": about["best"]}
    from tossctr.pipeline.evaluate import evaluate_run
    from tossctr.runs.run_folder import load_run
    from tossctr.training.device import resolve_device

    metrics = evaluate_run(load_run(run), data, device=resolve_device(gpu))
    return {**about, "metrics": metrics}


def _row(experiment: Experiment, seeds: Sequence[int], results: Sequence[Mapping[str, Any]]) -> Row:
    values = {name: [r["metrics"][name] for r in results] for name in default_metrics()}
    return Row(
        expid=experiment.expid,
        model=experiment.model,
        seeds=tuple(seeds),
        metrics={name: MeanStd.of(of_seeds) for name, of_seeds in values.items()},
        values=values,
        parameters=results[0]["parameters"],
        rows_per_s=statistics.fmean(result["rows_per_s"] for result in results),
        peak_mb=max(result["peak_mb"] for result in results),
    )


def run_command(*arguments: str) -> None:
    """Run a command in a new process, so that its peak memory is measured separately."""
    done = subprocess.run(
        [sys.executable, "-m", "tossctr", *arguments], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise UserError(f"tossctr {' '.join(arguments[:3])} failed", remedy="see the lines above")


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]
