"""The tables of a report, as rows of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tossctr.families.registry import family_of
from tossctr.metrics.registry import METRICS, default_metrics, find_metric, is_metric
from tossctr.report.distributions import Distributions
from tossctr.report.run_report import RunReport
from tossctr.runs.run_folder import Run
from tossctr.training.folder import WEIGHTS

UNKNOWN = "–"  # an older run did not record it


@dataclass(frozen=True)
class Table:
    """`head` and rows of cells; the first cell of a row names it, the others are set to the right
    unless `text`. `marked` rows stand out."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: bool = False
    marked: frozenset[int] = frozenset()


def scores(reports: Sequence[RunReport]) -> Table:
    """Every metric of every run, between a constant and what is attainable."""
    known = reports[0].attainable
    rows = []
    for key, name in metrics_of(reports[0]).items():
        of = reports[0].aim.metric if key == "calibrated" else key
        values = (f"{r.best[key]:.5f}{within(r, key, 5)}" for r in reports)
        cells = [name, f"{reports[0].baseline[of]:.5f}", *values]
        rows.append((*cells, f"{known[of]:.5f}") if known else tuple(cells))
    head = ("Metric", "Constant", *(r.name for r in reports))
    caption = "Metrics of held-out rows, with 95% intervals"
    return Table(caption, (*head, "Attainable") if known else head, tuple(rows))


def metrics_of(report: RunReport) -> dict[str, str]:
    """By key of `RunReport.best`, the titles of the default metrics that concern its objective:
    ranking metrics, then those of probabilities, before and after calibration."""
    shown = [name for name in default_metrics() if _concerns(report, name)]
    shown.sort(key=lambda name: not METRICS[name].ranking)
    names = {n: METRICS[n].title + ("" if METRICS[n].ranking else ", raw") for n in shown}
    if report.objective != "raw":
        names["calibrated"] = f"{METRICS[report.aim.metric].title}, calibrated"
    return names


def _concerns(report: RunReport, name: str) -> bool:
    """Whether a metric is shown: class-balanced ones only if the objective is one of them."""
    return report.aim.balanced or not (is_metric(name) and find_metric(name).class_balanced)


def history(report: RunReport) -> Table:
    """One row a validation."""
    names = [n for n in report.history[0] if n not in ("epoch", "step") and _concerns(report, n)]
    of_trees = report.boosted  # whose steps are their rounds
    return Table(
        f"Validations of {report.name}",
        (*(("Round",) if of_trees else ("Epoch", "Step")), *(n.replace("_", " ") for n in names)),
        tuple(
            (f"{row['epoch']:.0f}", *(() if of_trees else (f"{row['step']:,.0f}",)),
             *(number(row[n]) for n in names))
            for row in report.history
        ),
        marked=frozenset(
            i for i, row in enumerate(report.history) if row["step"] == report.kept["step"]
        ),
    )  # fmt: skip


def sliced(report: RunReport, field: str) -> Table:
    """Counts, rates and AUC by value."""
    return Table(
        f"{field}, {report.name}",
        (field, "Rows", "Clicks", "Click rate", "Predicted", "AUC", "±"),
        tuple(
            (s.name, f"{s.rows:,}", f"{s.clicks:,}", f"{s.rate:.2%}", f"{s.predicted:.2%}",
             *((UNKNOWN, UNKNOWN) if np.isnan(s.auc) else
               (f"{s.auc:.3f}", number(s.half_width, 3))))
            for s in report.slices[field]
        ),
    )  # fmt: skip


def importances(report: RunReport) -> Table:
    """AUC lost by field."""
    return Table(
        f"AUC lost when shuffled, {report.name}",
        ("Field", "AUC lost", "±"),
        tuple((o.name, f"{o.drop:.4f}", number(o.half_width, 4)) for o in report.importance),
    )


def gains(report: RunReport) -> Table:
    """Of trees, the columns that most of the gain is from."""
    return Table(
        f"Share of the trees' gain, {report.name}",
        ("Column", "Share"),
        tuple((name, f"{share:.2%}") for name, share in report.gain.items()),
    )


def members(report: RunReport) -> Table:
    """Folds, or a blend's members and the ways to combine them, each with its own scores."""
    assert report.members is not None
    found = report.members
    short = {"competition_score": "Score", "logloss": "Log loss"}
    names = [short.get(key, key) for key in found.metrics]

    def cell(value: float, std: float) -> str:
        return f"{value:.4f} ± {std:.4f}" if np.isfinite(std) else f"{value:.4f}"

    return Table(
        f"The parts of {report.name} on held-out rows",
        ("Part", "Weight", *names, "Of"),
        tuple(
            (one.name, "" if one.weight is None else f"{one.weight:.3f}",
             *(cell(*one.scores[key]) for key in found.metrics), one.about)
            for one in found.rows
        ),
        marked=frozenset(i for i, one in enumerate(found.rows) if one.chosen),
    )  # fmt: skip


def drifts(name: str, found: Distributions) -> Table:
    """Every field's drift."""
    return Table(
        f"Population stability index, {found.rows[0]:,} rows of train and {found.rows[1]:,} of "
        f"{found.other}, {name}",
        ("Field", "Index"),
        tuple((name, f"{index:.4f}") for name, index in found.drift.items()),
    )


def steps(reports: Sequence[RunReport]) -> Table:
    """Time and memory of each step."""

    def row(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *(cell(r) for r in reports))

    def made(key: str, unit: str) -> Any:
        def cell(r: RunReport) -> str:
            made = r.stored.prepare if r.stored else {}
            return f"{made[key]:,.1f} {unit}" if key in made else UNKNOWN

        return cell

    def rows_of(part: str) -> Any:
        def cell(r: RunReport) -> str:
            return f"{r.stored.prepare['report'][part]['rows']:,}" if r.stored else UNKNOWN

        return cell

    def metric(key: str, form: str, over: Callable[[list[float]], float] = sum) -> Any:
        def cell(r: RunReport) -> str:
            values = [run.metrics[key] for run in r.runs if key in run.metrics]
            return form.format(over(values)) if len(values) == len(r.runs) else UNKNOWN

        return cell

    return Table(
        "Time and memory",
        ("Step", *(r.name for r in reports)),
        tuple(one for one in (
            row("Rows to train on", rows_of("train")),
            row("Rows to validate on", rows_of("valid")),
            row("Prepare: time", made("seconds", "s")),
            row("Prepare: peak memory", made("peak_mb", "MB")),
            row("Store on disk",
                lambda r: f"{r.stored.bytes / 1e6:,.1f} MB" if r.stored else UNKNOWN),
            row("Models", lambda r: f"{len(r.runs):,}"),
            row("Parameters", metric("parameters", "{:,}")),
            row("Weights on disk", lambda r: f"{sum(map(_size, r.runs)) / 1e6:,.2f} MB"),
            row("Train: time", metric("seconds", "{:,.0f} s")),
            row("Train: rows a second", metric("rows_per_s", "{:,.0f}", fmean)),
            row("Train: peak memory", metric("peak_mb", "{:,.0f} MB", max)),
            row("Train: batches left out", metric("skipped_batches", "{:,}")),
            row("Score: rows a second", lambda r: UNKNOWN if r.scored.rows_per_s is None
                else f"{r.scored.rows_per_s:,.0f}"),
        ) if any(cell != UNKNOWN for cell in one[1:])),
    )  # fmt: skip


def _size(run: Run) -> int:
    names = (WEIGHTS, *family_of(run.experiment.model).files)
    files = [run.folder / name for name in names]
    return sum(file.stat().st_size for file in files if file.exists())


def hashes(report: RunReport) -> Table:
    """SHA-256 by file."""
    rows = (*(report.stored.hashes.items() if report.stored else ()), *report.hashes.items())
    return Table(f"SHA-256, {report.name}", ("File", "SHA-256"), rows, text=True)


def fields(name: str, run: Run) -> Table:
    """The fields as the model sees them."""
    return Table(
        f"Fields of {name}",
        ("Field", "Type", "Vocabulary", "Events seen"),
        tuple(
            (f.name, f.type.replace("_", " "), f"{f.vocab_size:,}" if f.vocab_size else "",
             "" if "sequence" not in f.type else f"{f.max_len:,}" if f.max_len else "all")
            for f in run.features.fields
        ),
    )  # fmt: skip


def config(reports: Sequence[RunReport]) -> tuple[Table | None, Table]:
    """The settings that differ between the runs (if any), and all of them; a column for each
    config of a blend."""
    named = {name: run for r in reports for name, run in r.parts.items()}
    flat = [
        _flat(run.experiment.model_dump(mode="json", serialize_as_any=True))
        for run in named.values()
    ]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [(key, *(one.get(key, UNKNOWN) for one in flat)) for key in keys]
    head = ("Setting", *named)
    differing = [row for row in rows if len(set(row[1:])) > 1]
    some = Table("Settings that differ", head, tuple(differing), text=True) if differing else None
    return some, Table("All settings", head, tuple(rows), text=True)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if key == "feature_cols":
            continue  # the table of fields has them
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            found[prefix + key] = ", ".join(map(str, value)) or "none"
        else:
            found[prefix + key] = "none" if value is None else str(value)
    return found


def within(report: RunReport, key: str, digits: int) -> str:
    """Half the 95% interval of one of `best`, as it stands behind the value."""
    half = report.half_width[key]
    return f" ± {half:.{digits}f}" if np.isfinite(half) else ""


def number(value: float, digits: int = 5) -> str:
    """With so many decimals; a small one with three significant digits."""
    if not np.isfinite(value):
        return UNKNOWN
    return f"{value:.3g}" if 0 < abs(value) < 10.0**-digits * 10 else f"{value:.{digits}f}"
