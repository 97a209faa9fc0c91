"""The tables of a report, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tossctr.report.collect import RunReport
from tossctr.training.run_folder import WEIGHTS

UNKNOWN = "–"  # an older run did not record it
METRICS = {
    "AUC": "AUC",
    "AP": "Average precision",
    "logloss": "Log loss",
    "WLL": "WLL, raw",
    "competition_score": "Competition score, raw",
    "calibrated_score": "Competition score, calibrated",
}


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
    for key, name in METRICS.items():
        of = "competition_score" if key == "calibrated_score" else key
        cells = [name, f"{reports[0].baseline[of]:.5f}", *(f"{r.best[key]:.5f}" for r in reports)]
        rows.append((*cells, f"{known[of]:.5f}") if known else tuple(cells))
    head = ("Metric", "Constant", *(r.name for r in reports))
    return Table("Validation metrics", (*head, "Attainable") if known else head, tuple(rows))


def history(report: RunReport) -> Table:
    """One row a validation."""
    names = [n for n in report.history[0] if n not in ("epoch", "step")]
    best = report.run.metrics["best"]["step"]
    return Table(
        f"Validations of {report.name}",
        ("Epoch", "Step", *(n.replace("_", " ") for n in names)),
        tuple(
            (f"{row['epoch']:.0f}", f"{row['step']:,.0f}", *(number(row[n]) for n in names))
            for row in report.history
        ),
        marked=frozenset(i for i, row in enumerate(report.history) if row["step"] == best),
    )


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


def drifts(report: RunReport) -> Table:
    """Every field's drift."""
    found = report.distributions
    return Table(
        f"Population stability index, {found.rows[0]:,} rows of train and {found.rows[1]:,} of "
        f"{found.other}",
        ("Field", "Index"),
        tuple((name, f"{index:.4f}") for name, index in found.drift.items()),
    )


def steps(reports: Sequence[RunReport]) -> Table:
    """Time and memory of each step."""

    def row(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *(cell(r) for r in reports))

    def made(key: str, unit: str) -> Any:
        return lambda r: f"{r.prepare[key]:,.1f} {unit}" if key in r.prepare else UNKNOWN

    def rows_of(part: str) -> Any:
        return lambda r: f"{r.prepare['report'][part]['rows']:,}"

    def metric(key: str, form: str) -> Any:
        return lambda r: form.format(r.run.metrics[key]) if key in r.run.metrics else UNKNOWN

    return Table(
        "Time and memory",
        ("Step", *(r.name for r in reports)),
        tuple(one for one in (
            row("Rows to train on", rows_of("train")),
            row("Rows to validate on", rows_of("valid")),
            row("Prepare: time", made("seconds", "s")),
            row("Prepare: peak memory", made("peak_mb", "MB")),
            row("Store on disk", lambda r: f"{r.store_bytes / 1e6:,.1f} MB"),
            row("Parameters", metric("parameters", "{:,}")),
            row("Weights on disk", lambda r: f"{_size(r) / 1e6:,.2f} MB"),
            row("Train: time", metric("seconds", "{:,.0f} s")),
            row("Train: rows a second", metric("rows_per_s", "{:,.0f}")),
            row("Train: peak memory", metric("peak_mb", "{:,.0f} MB")),
            row("Train: batches left out", metric("skipped_batches", "{:,}")),
            row("Score: rows a second", lambda r: UNKNOWN if r.scored.rows_per_s is None
                else f"{r.scored.rows_per_s:,.0f}"),
        ) if any(cell != UNKNOWN for cell in one[1:])),
    )  # fmt: skip


def _size(report: RunReport) -> int:
    file = report.run.folder / WEIGHTS
    return file.stat().st_size if file.exists() else 0


def hashes(report: RunReport) -> Table:
    """SHA-256 by file."""
    rows = tuple(report.hashes.items())
    return Table(f"SHA-256, {report.name}", ("File", "SHA-256"), rows, text=True)


def fields(report: RunReport) -> Table:
    """The fields as the model sees them."""
    return Table(
        f"Fields of {report.name}",
        ("Field", "Kind", "Vocabulary", "Events seen"),
        tuple(
            (f.name, f.kind.replace("_", " "), f"{f.vocab_size:,}" if f.vocab_size else "",
             "" if "sequence" not in f.kind else f"{f.max_len:,}" if f.max_len else "all")
            for f in report.run.features.fields
        ),
    )  # fmt: skip


def config(reports: Sequence[RunReport]) -> tuple[Table | None, Table]:
    """The settings that differ between the runs (if any), and all of them."""
    flat = [_flat(r.run.experiment.model_dump(mode="json", serialize_as_any=True)) for r in reports]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [(key, *(one.get(key, UNKNOWN) for one in flat)) for key in keys]
    head = ("Setting", *(r.name for r in reports))
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


def number(value: float, digits: int = 5) -> str:
    """With so many decimals; a small one with three significant digits."""
    if not np.isfinite(value):
        return UNKNOWN
    return f"{value:.3g}" if 0 < abs(value) < 10.0**-digits * 10 else f"{value:.{digits}f}"
