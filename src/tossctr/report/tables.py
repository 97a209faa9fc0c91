"""The tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tossctr.families.registry import family_of
from tossctr.inference.predict import FittedModel
from tossctr.metrics.registry import METRICS, default_metrics
from tossctr.report.distributions import Distributions
from tossctr.report.members import Members
from tossctr.report.run_report import RunReport
from tossctr.training.folder import WEIGHTS

UNKNOWN = "–"
Cell = Callable[[RunReport], str]


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        rows: the first cell of a row is its heading.
        text: cells are text, aligned left; numbers are aligned right.
        marked: numbers of the highlighted rows.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: bool = False
    marked: frozenset[int] = frozenset()


def scores(reports: Sequence[RunReport]) -> Table:
    """Every metric of every run, between the baseline and the attainable value."""
    known = reports[0].attainable
    rows = []
    for key, name in metrics_of(reports[0]).items():
        of = reports[0].aim.metric if key == "calibrated" else key
        values = (f"{r.best[key]:.5f}{within(r, key, 5)}" for r in reports)
        cells = [name, f"{reports[0].baseline[of]:.5f}", *values]
        rows.append((*cells, f"{known[of]:.5f}") if known else tuple(cells))
    head = ("Metric", "Baseline", *(r.name for r in reports))
    caption = "Metrics on held-out rows, with 95 % intervals"
    return Table(caption, (*head, "Attainable") if known else head, tuple(rows))


def metrics_of(report: RunReport) -> dict[str, str]:
    """Titles of the metrics to show, by key of `RunReport.best`: ranking metrics, then metrics of
    the raw and of the calibrated probabilities."""
    shown = [name for name in default_metrics() if _concerns(report, name)]
    shown.sort(key=lambda name: not METRICS[name].ranking)
    names = {n: METRICS[n].title + ("" if METRICS[n].ranking else ", raw") for n in shown}
    if report.objective != "raw":
        names["calibrated"] = f"{METRICS[report.aim.metric].title}, calibrated"
    return names


def _concerns(report: RunReport, name: str) -> bool:
    """Whether a metric is shown: class-balanced ones only if the objective is one of them."""
    return report.aim.balanced or not (name in METRICS and METRICS[name].class_balanced)


def history(report: RunReport) -> Table:
    """One row per validation."""
    names = [n for n in report.history[0] if n not in ("epoch", "step") and _concerns(report, n)]
    unit, step = report.family.epoch_unit, report.family.step_unit
    stepwise = unit != step
    head = (unit.capitalize(), "Step") if stepwise else (unit.capitalize(),)
    return Table(
        f"Validations of {report.name}",
        (*head, *(n.replace("_", " ") for n in names)),
        tuple(
            (f"{row['epoch']:.0f}", *((f"{row['step']:,.0f}",) if stepwise else ()),
             *(number(row[n]) for n in names))
            for row in report.history
        ),
        marked=frozenset(
            i for i, row in enumerate(report.history) if row["step"] == report.kept["step"]
        ),
    )  # fmt: skip


def segments(report: RunReport, field: str) -> Table:
    """Counts, click rates and AUC by segment."""
    return Table(
        f"{field}, {report.name}",
        (field, "Rows", "Clicks", "Click rate", "Predicted", "AUC", "±"),
        tuple(
            (s.name, f"{s.rows:,}", f"{s.clicks:,}", f"{s.rate:.2%}", f"{s.predicted:.2%}",
             *((UNKNOWN, UNKNOWN) if np.isnan(s.auc) else
               (f"{s.auc:.3f}", number(s.half_width, 3))))
            for s in report.segments[field]
        ),
    )  # fmt: skip


def importances(report: RunReport) -> Table:
    """Permutation importance by field."""
    return Table(
        f"Permutation importance, {report.name}",
        ("Field", "Decrease in AUC", "±"),
        tuple((o.name, f"{o.drop:.4f}", number(o.half_width, 4)) for o in report.importance),
    )


def gains(report: RunReport) -> Table:
    """Share of the total split gain by column."""
    return Table(
        f"Gain importance, {report.name}",
        ("Column", "Share of gain"),
        tuple((name, f"{share:.2%}") for name, share in report.gain.items()),
    )


def members(name: str, found: Members) -> Table:
    """The scores of folds, or of a blend's members and of the blending methods."""
    short = {"competition_score": "Score", "logloss": "Log loss"}
    names = [short.get(key, key) for key in found.metrics]

    def cell(value: float, std: float) -> str:
        return f"{value:.4f} ± {std:.4f}" if np.isfinite(std) else f"{value:.4f}"

    return Table(
        f"Members of {name}, on held-out rows",
        ("Member", "Weight", *names, "Details"),
        tuple(
            (one.name, "" if one.weight is None else f"{one.weight:.3f}",
             *(cell(*one.scores[key]) for key in found.metrics), one.about)
            for one in found.rows
        ),
        marked=frozenset(i for i, one in enumerate(found.rows) if one.chosen),
    )  # fmt: skip


def drifts(name: str, found: Distributions) -> Table:
    """Drift by field."""
    return Table(
        f"Population stability index, {found.rows[0]:,} train and {found.rows[1]:,} {found.other} "
        f"rows, {name}",
        ("Field", "Index"),
        tuple((name, f"{index:.4f}") for name, index in found.drift.items()),
    )


def steps(reports: Sequence[RunReport]) -> Table:
    """Time and memory of each step, without rows that no report knows."""

    def prepared(key: str, unit: str) -> Cell:
        return lambda r: f"{r.data.prepare[key]:,.1f} {unit}" if r.data else UNKNOWN

    def rows_of(split: str) -> Cell:
        return lambda r: f"{r.data.prepare['report'][split]['rows']:,}" if r.data else UNKNOWN

    def metric(key: str, form: str, over: Callable[[list[float]], float] = sum) -> Cell:
        def cell(r: RunReport) -> str:
            values = [run.metrics[key] for run in r.runs if key in run.metrics]
            return form.format(over(values)) if len(values) == len(r.runs) else UNKNOWN

        return cell

    cells: dict[str, Cell] = {
        "Training rows": rows_of("train"),
        "Validation rows": rows_of("valid"),
        "Prepare: time": prepared("seconds", "s"),
        "Prepare: peak memory": prepared("peak_mb", "MB"),
        "Prepared data on disk": lambda r: f"{r.data.bytes / 1e6:,.1f} MB" if r.data else UNKNOWN,
        "Models": lambda r: f"{len(r.runs):,}",
        "Parameters": metric("parameters", "{:,}"),
        "Weights on disk": lambda r: f"{sum(map(_weights_bytes, r.runs)) / 1e6:,.2f} MB",
        "Training: time": metric("seconds", "{:,.0f} s"),
        "Training: rows per second": metric("rows_per_s", "{:,.0f}", fmean),
        "Training: peak memory": metric("peak_mb", "{:,.0f} MB", max),
        "Training: skipped batches": metric("skipped_batches", "{:,}"),
        "Scoring: rows per second": lambda r: (
            UNKNOWN if r.scored.rows_per_s is None else f"{r.scored.rows_per_s:,.0f}"
        ),
    }
    rows = [(name, *(cell(r) for r in reports)) for name, cell in cells.items()]
    known = tuple(row for row in rows if set(row[1:]) != {UNKNOWN})
    return Table("Time and memory", ("Step", *(r.name for r in reports)), known)


def _weights_bytes(run: FittedModel) -> int:
    names = (WEIGHTS, *family_of(run.experiment.model).files)
    files = [run.folder / name for name in names]
    return sum(file.stat().st_size for file in files if file.exists())


def hashes(report: RunReport) -> Table:
    """SHA-256 by file."""
    rows = (*(report.data.hashes.items() if report.data else ()), *report.hashes.items())
    return Table(f"SHA-256, {report.name}", ("File", "SHA-256"), rows, text=True)


def fields(name: str, run: FittedModel) -> Table:
    """The fields as the model sees them."""
    return Table(
        f"Fields of {name}",
        ("Field", "Type", "Vocabulary size", "Maximum events"),
        tuple(
            (f.name, f.type.replace("_", " "), f"{f.vocab_size:,}" if f.vocab_size else "",
             "" if "sequence" not in f.type else f"{f.max_len:,}" if f.max_len else "all")
            for f in run.features.fields
        ),
    )  # fmt: skip


def config(reports: Sequence[RunReport]) -> tuple[Table | None, Table]:
    """The settings that differ between the runs (if any), and all settings; one column per config
    of a blend."""
    named = {name: run for r in reports for name, run in r.configs.items()}
    flat = [
        _flat(run.experiment.model_dump(mode="json", serialize_as_any=True))
        for run in named.values()
    ]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [(key, *(one.get(key, UNKNOWN) for one in flat)) for key in keys]
    head = ("Setting", *named)
    differing = [row for row in rows if len(set(row[1:])) > 1]
    table = Table("Settings that differ", head, tuple(differing), text=True) if differing else None
    return table, Table("All settings", head, tuple(rows), text=True)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if key == "feature_cols":
            continue  # shown in the table of fields
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            found[prefix + key] = ", ".join(map(str, value)) or "none"
        else:
            found[prefix + key] = "none" if value is None else str(value)
    return found


def within(report: RunReport, key: str, digits: int) -> str:
    """Half the 95 % interval of a metric in `best`, formatted to follow the value."""
    half = report.half_width[key]
    return f" ± {half:.{digits}f}" if np.isfinite(half) else ""


def number(value: float, digits: int = 5) -> str:
    """A number with `digits` decimals; a small one with three significant digits."""
    if not np.isfinite(value):
        return UNKNOWN
    return f"{value:.3g}" if 0 < abs(value) < 10.0**-digits * 10 else f"{value:.{digits}f}"
