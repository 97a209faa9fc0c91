"""The report as one HTML file without scripts or network access, with inline SVG."""

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
from tossctr.experiments.predictors import load_predictor
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


@dataclass(frozen=True)
class Score:
    """A metric on a scale from the baseline to the attainable value.

    Attributes:
        values, within, at: by run: the value, half its 95 % interval, and its position on the
            scale in per cent.
        low, high: the ends of the scale; `high` is None if the attainable value is unknown.
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
    """Write a report on runs, folds and blends as one HTML file.

    Args:
        folders: one to six; the held-out rows of the first define the baseline and the attainable
            scores, and its objective is what all are calibrated for.
        output: the HTML file.
        device: where to compute predictions.
        force: replace an existing file that TossCTR did not write.

    Raises:
        UserError: too many folders, one that cannot be loaded, a run whose data are missing, or an
            output that must not be replaced.
    """
    if not 0 < len(folders) <= len(SERIES):
        raise UserError(
            "a report shows one to six runs", value=len(folders), remedy="name fewer runs"
        )
    predictors = [load_predictor(folder) for folder in folders]
    inputs = [file for one in predictors for file in (one.marker, *one.experiment.dataset.files)]
    target = check_output(output, inputs=inputs, force=force)
    names = names_of([one.folder for one in predictors])
    objective = predictors[0].objective
    reports = [
        collect(one, name, device, objective) for one, name in zip(predictors, names, strict=True)
    ]
    page = render(reports)
    with output_file(target, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"report written to {output}")
    return output


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as make them unique; a repeated folder gets a
    number."""
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
    """The HTML page."""
    common, separate = shared([findings(r) for r in reports])
    common = [*_different_rows(reports), *common]
    environment = Environment(
        loader=PackageLoader("tossctr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    datasets = dict.fromkeys(
        run.experiment.dataset.dataset_id for r in reports for run in r.configs.values()
    )
    page = environment.get_template("report.html.j2").render(
        title=" and ".join(r.name for r in reports),
        reports=reports,
        models=list(
            dict.fromkeys(run.experiment.model for r in reports for run in r.configs.values())
        ),
        dataset=", ".join(datasets),
        measured=_measured(reports),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        cards=[_card(reports, key) for key in _headline(reports[0])],
        scores=tables.scores(reports),
        common=common,
        findings=[(r.name, found) for r, found in zip(reports, separate, strict=True)],
        sections=sections(reports),
        svg=Markup,
    )
    return printable(page)  # it contains names and values from the user's data


def _code(text: str) -> Markup:
    """HTML of a text in which backquotes mark code."""
    parts = [escape(part) for part in text.split("`")]
    marked = [Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts)]
    return Markup("").join(marked)


def _measured(reports: Sequence[RunReport]) -> str:
    """The rows that the metrics are measured on."""

    def rows(report: RunReport) -> str:
        found = report.scored
        kind = "validation rows" if found.split == "valid" else "training rows"
        count = f"all {found.total:,} {kind}"
        if len(found.label) < found.total:
            count = f"{len(found.label):,} evenly spaced rows of {found.total:,} {kind}"
        method = ", predicted out of fold" if found.split == "train" else ""
        return f"{count}{method} ({found.label.sum():,.0f} clicks)"

    of: dict[str, list[str]] = {}
    for report in reports:
        of.setdefault(rows(report), []).append(report.name)
    if len(of) == 1:
        return f"Measured on {next(iter(of))}."
    return " ".join(f"{', '.join(names)}: {text}." for text, names in of.items())


def _different_rows(reports: Sequence[RunReport]) -> list[Finding]:
    first = reports[0].scored

    def same(other: Scored) -> bool:
        return (
            other.split == first.split
            and np.array_equal(other.row, first.row)
            and np.array_equal(other.label, first.label)
        )

    if all(same(report.scored) for report in reports):
        return []
    return [
        Finding(
            "watch",
            "The runs were not measured on the same rows.",
            "Differences within the intervals may be due to chance; baseline and attainable scores "
            f"are for the rows of {reports[0].name}.",
        )
    ]


def _headline(report: RunReport) -> tuple[str, ...]:
    """The metrics at the top of the page."""
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
    # If the attainable value is unknown, the scale ends at the best run.
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
            "calibrated": "calibrated out of fold"
            + (", in nats; lower is better" if of == "logloss" else ""),
            "AUC": "chance that a click outranks a non-click",
            "AP": "area under the precision-recall curve",
            "logloss": "raw predictions, in nats; lower is better",
        }[key],
    )
