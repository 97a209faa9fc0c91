"""The report as one HTML file: no script, no network, its plots drawn into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tossctr import __version__
from tossctr.errors import UserError
from tossctr.experiments.opening import open_scorer
from tossctr.inference.predictor import Scorer, marker_of, objective_of
from tossctr.location import Location
from tossctr.metrics.registry import METRICS
from tossctr.outputs import check_output, output_file
from tossctr.printable import printable
from tossctr.progress import say
from tossctr.report import tables
from tossctr.report.collect import collect
from tossctr.report.findings import Finding, findings, shared
from tossctr.report.run_report import RunReport
from tossctr.report.sample import Scored
from tossctr.report.sections import sections
from tossctr.report.svg import SERIES
from tossctr.runs.run_folder import Run


@dataclass(frozen=True)
class Score:
    """A metric between a constant prediction and what is attainable.

    Attributes:
        values: by run, with `within`, half the 95% interval; `at` says where on the scale they
            lie, in per cent.
        low, high: the scale's ends; `high` is None where nobody knows what is attainable.
    """

    name: str
    values: tuple[str, ...]
    within: tuple[str, ...]
    at: tuple[float, ...]
    low: str
    high: str | None
    note: str


def write_report(
    folders: Sequence[Path], output: Path, device: torch.device, *, force: bool = False
) -> Path:
    """Look at runs, folds and blends, and write what is found as one HTML file.

    Args:
        folders: of up to six; the first one's held-out rows give chance and ceiling, its objective
            what all are calibrated for.
        output: the file.
        device: where to score.
        force: replace a file there that TossCTR did not write.

    Raises:
        UserError: too many, one that cannot be loaded, a run whose data are not there, or an output
            that may not be replaced.
    """
    if not 0 < len(folders) <= len(SERIES):
        raise UserError(
            "a report shows one to six runs", value=len(folders), remedy="name fewer runs"
        )
    opened = [open_scorer(folder) for folder in folders]
    inputs = [location for one in opened for location in _read_for(one)]
    target = check_output(output, inputs=inputs, force=force)
    names = names_of([one.folder for one in opened])
    objective = objective_of(opened[0])
    reports = [
        collect(one, name, device, objective) for one, name in zip(opened, names, strict=True)
    ]
    page = render(reports)
    with output_file(target, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"report written to {output}")
    return output


def _read_for(run: Run | Scorer) -> list[Location]:
    return [marker_of(run), *run.experiment.dataset.files]


def names_of(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of its parents' as make them different; the same folder
    twice gets a number."""
    parts = [folder.resolve().parts for folder in folders]

    def named(depth: int) -> list[str]:
        return [str(Path(*p[-depth:])) for p in parts]

    depth = 1
    while depth < max(map(len, parts)) and len(set(named(depth))) < len(set(parts)):
        depth += 1
    names = named(depth)
    return [
        f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name
        for i, name in enumerate(names)
    ]


def render(reports: Sequence[RunReport]) -> str:
    """The page."""
    common, apart = shared([findings(r) for r in reports])
    common = [*_of_other_rows(reports), *common]
    environment = Environment(
        loader=PackageLoader("tossctr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    datasets = dict.fromkeys(
        run.experiment.dataset.dataset_id for r in reports for run in r.parts.values()
    )
    page = environment.get_template("report.html.j2").render(
        title=" and ".join(r.name for r in reports),
        reports=reports,
        models=list(
            dict.fromkeys(run.experiment.model for r in reports for run in r.parts.values())
        ),
        dataset=", ".join(datasets),
        measured=_measured(reports),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        cards=[_card(reports, key) for key in _headline(reports[0])],
        scores=tables.scores(reports),
        common=common,
        findings=[(r.name, found) for r, found in zip(reports, apart, strict=True)],
        sections=sections(reports),
        svg=Markup,
    )
    return printable(page)  # names and values in it are others' text


def _code(text: str) -> Markup:
    """Text in which `this` is code."""
    parts = [escape(part) for part in text.split("`")]
    marked = [Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts)]
    return Markup("").join(marked)


def _measured(reports: Sequence[RunReport]) -> str:
    """Which rows the numbers are of."""

    def rows(report: RunReport) -> str:
        found = report.scored
        count = f"all {found.of:,}"
        if len(found.label) < found.of:
            count = f"{len(found.label):,} evenly spaced of {found.of:,}"
        kind = "validation rows"
        if report.scored.part == "train":
            kind = "training rows, each by models that had not seen it"
        return f"{count} {kind}, {found.label.sum():,.0f} of them clicks"

    of: dict[str, list[str]] = {}
    for report in reports:
        of.setdefault(rows(report), []).append(report.name)
    if len(of) == 1:
        return f"Measured on {next(iter(of))}."
    return "".join(f"{' and '.join(names)}: on {text}. " for text, names in of.items()).strip()


def _of_other_rows(reports: Sequence[RunReport]) -> list[Finding]:
    first = reports[0].scored

    def same(other: Scored) -> bool:
        return (
            other.part == first.part
            and np.array_equal(other.row, first.row)
            and np.array_equal(other.label, first.label)
        )

    if all(same(report.scored) for report in reports):
        return []
    return [
        Finding(
            "watch",
            "These were not measured on the same rows.",
            "Differences within the intervals may be luck; constant and attainable are those of "
            f"{reports[0].name}'s rows.",
        )
    ]


def _headline(report: RunReport) -> tuple[str, ...]:
    """The metrics that stand first, four at most."""
    if report.objective == "raw":
        return ("AUC", "AP", "logloss")
    if report.aim.balanced:
        return ("calibrated", "AUC", "AP", "logloss")
    return ("AUC", "AP", "calibrated", "logloss")


def _card(reports: Sequence[RunReport], key: str) -> Score:
    aim = reports[0].aim
    of = aim.metric if key == "calibrated" else key
    low, known = reports[0].baseline[of], reports[0].attainable
    values = [r.best[key] for r in reports]
    best = max(values, key=lambda v: abs(v - low)) if of != "logloss" else min(values)
    # Without a ceiling the scale ends where the best run is.
    high = known[of] if known else best
    span = (high - low) or 1.0
    return Score(
        name=METRICS[of].title
        + (f", {'calibrated' if key != of else 'raw'}" if of == "logloss" else ""),
        values=tuple(f"{v:.4f}" for v in values),
        within=tuple(tables.within(r, key, 4) for r in reports),
        at=tuple(round(min(max(100 * (v - low) / span, 0), 100), 1) for v in values),
        low=f"{low:.4f}",
        high=f"{known[of]:.4f}" if known else None,
        note={
            "calibrated": "after calibration, by maps that were fit without the row"
            + (", nats; lower is better" if of == "logloss" else ""),
            "AUC": "a click is ranked above a non-click so often",
            "AP": "mean precision over all clicks",
            "logloss": "as the model predicts, nats; lower is better",
        }[key],
    )
