"""The report as one HTML file: no script, no network, its plots drawn into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tossctr import __version__
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.progress import say
from tossctr.report import bars, figures, tables
from tossctr.report.collect import RunReport, collect
from tossctr.report.findings import findings, shared
from tossctr.report.svg import SERIES, Plot
from tossctr.report.tables import Table
from tossctr.training.run_folder import load_run


@dataclass(frozen=True)
class Score:
    """A metric between a constant prediction and what is attainable.

    Attributes:
        values: by run; `at` says where on the scale they lie, in per cent.
        low, high: the scale's ends; `high` is None where nobody knows what is attainable.
    """

    name: str
    values: tuple[str, ...]
    at: tuple[float, ...]
    low: str
    high: str | None
    note: str


@dataclass(frozen=True)
class Section:
    """A chapter of the page; `tables` are folded away below its plots."""

    id: str
    title: str
    lead: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    open_tables: Sequence[Table] = ()
    folded: str = "The numbers as tables"


def write_report(folders: Sequence[Path], output: Path, device: torch.device) -> Path:
    """Look at runs and write what is found as one HTML file.

    Args:
        folders: of up to six runs; the first one's validation rows give chance and ceiling.
        output: the file.
        device: where to score.

    Raises:
        UserError: too many runs, one that cannot be loaded, or whose data are not there.
    """
    if not 0 < len(folders) <= len(SERIES):
        raise UserError(
            "a report shows one to six runs", value=len(folders), remedy="name fewer runs"
        )
    reports = [
        collect(load_run(folder), name, device)
        for folder, name in zip(folders, names_of(folders), strict=True)
    ]
    page = render(reports)
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"report written to {output}")
    return output


def names_of(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of its parents' as make them different; the same folder
    twice gets a number."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    names = [str(Path(*p[-depth:])) for p in parts]
    return [
        f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name
        for i, name in enumerate(names)
    ]


def render(reports: Sequence[RunReport]) -> str:
    """The page."""
    common, apart = shared([findings(r) for r in reports])
    environment = Environment(
        loader=PackageLoader("tossctr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    first = reports[0]
    datasets = dict.fromkeys(r.run.experiment.dataset.dataset_id for r in reports)
    return environment.get_template("report.html.j2").render(
        title=" and ".join(r.name for r in reports),
        reports=reports,
        models=[r.run.experiment.model for r in reports],
        dataset=", ".join(datasets),
        rows=first.scored,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        cards=[_card(reports, key) for key in ("calibrated_score", "AUC", "AP", "logloss")],
        scores=tables.scores(reports),
        common=common,
        findings=[(r.name, found) for r, found in zip(reports, apart, strict=True)],
        sections=_sections(reports),
        svg=Markup,
    )


def _code(text: str) -> Markup:
    """Text in which `this` is code."""
    parts = [escape(part) for part in text.split("`")]
    marked = [Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts)]
    return Markup("").join(marked)


def _card(reports: Sequence[RunReport], key: str) -> Score:
    of = "competition_score" if key == "calibrated_score" else key
    low, known = reports[0].baseline[of], reports[0].attainable
    values = [r.best[key] for r in reports]
    best = max(values, key=lambda v: abs(v - low)) if of != "logloss" else min(values)
    # Without a ceiling the scale ends where the best run is.
    high = known[of] if known else best
    span = (high - low) or 1.0
    return Score(
        name={
            "calibrated_score": "Competition score",
            "AUC": "AUC",
            "AP": "Average precision",
            "logloss": "Log loss",
        }[key],
        values=tuple(f"{v:.4f}" for v in values),
        at=tuple(round(min(max(100 * (v - low) / span, 0), 100), 1) for v in values),
        low=f"{low:.4f}",
        high=f"{known[of]:.4f}" if known else None,
        note={
            "calibrated_score": "after calibration",
            "AUC": "a click is ranked above a non-click so often",
            "AP": "mean precision over all clicks",
            "logloss": "raw predictions, nats; lower is better",
        }[key],
    )


def _sections(reports: Sequence[RunReport]) -> list[Section]:
    several = len(reports) > 1
    fields = list(dict.fromkeys(name for r in reports for name in r.slices))
    attention = bars.attended(reports)
    differing, config = tables.config(reports)
    # Runs on the same data share these.
    datasets = list({r.run.encoder.hash: r for r in reports}.values())
    about = [plot for i, r in enumerate(datasets) for plot in _data_plots(r, i)]
    return [
        Section(
            "learning", "Learning", "How validation went while the model learnt.",
            figures.learning(reports),
            [tables.history(r) for r in reports if r.history],
        ),
        Section(
            "ranking", "Ranking", "How well clicks are told from non-clicks, at every threshold.",
            figures.ranking(reports),
        ),
        Section(
            "reliability", "Reliability", "Whether what is predicted is what happens.",
            figures.calibration(reports),
        ),
        Section(
            "where", "Where it works", "The same model, apart for each value of a field.",
            [bars.sliced(reports, field, f"slice-{i}") for i, field in enumerate(fields)],
            [tables.sliced(r, field) for field in fields for r in reports if field in r.slices],
        ),
        Section(
            "why", "What it looks at", "Which fields and which events the predictions rest on.",
            [bars.importances(reports), *([attention] if attention else [])],
            [tables.importances(r) for r in reports],
        ),
        Section(
            "data", "The data", "What the histories hold, and whether test looks like train.",
            about, [tables.drifts(r) for r in datasets],
        ),
        Section(
            "cost", "Time and memory", "What each step took.",
            open_tables=[tables.steps(reports)],
        ),
        Section(
            "config", "Settings and files",
            "Everything needed to do it again."
            + (" The runs have the same settings." if several and differing is None else ""),
            tables=[config, *map(tables.fields, reports), *map(tables.hashes, reports)],
            open_tables=[differing] if several and differing else [],
            folded="All settings, fields and hashes",
        ),
    ]  # fmt: skip


def _data_plots(report: RunReport, number: int) -> list[Plot]:
    found = report.distributions
    plots = [
        bars.lengths(report, field, f"lengths-{number}-{i}")
        for i, field in enumerate(list(found.lengths)[:1])  # those of one history are alike
    ]
    plots += [
        bars.tokens(report, field, f"tokens-{number}-{i}") for i, field in enumerate(found.tokens)
    ]
    return [*plots, bars.drifted(report, f"drift-{number}")] if found.drift else plots
