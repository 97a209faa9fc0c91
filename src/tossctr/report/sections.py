"""The sections of a report; a builder returns None if it has nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tossctr.report import bars, figures, tables
from tossctr.report.distributions import Distributions
from tossctr.report.run_report import RunReport
from tossctr.report.svg import Plot
from tossctr.report.tables import Table


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        id: its anchor.
        lead: one sentence below the title.
        open_tables: shown below the plots.
        tables: in a collapsed block with the summary line `folded`.
    """

    id: str
    title: str
    lead: str
    plots: Sequence[Plot] = ()
    open_tables: Sequence[Table] = ()
    tables: Sequence[Table] = ()
    folded: str = "The numbers as tables"


def sections(reports: Sequence[RunReport]) -> list[Section]:
    """The sections that have something to show, in the order of the page."""
    return [section for build in BUILDERS if (section := build(reports)) is not None]


def _members(reports: Sequence[RunReport]) -> Section | None:
    found = [tables.members(r) for r in reports if r.members is not None]
    if not found:
        return None
    lead = "Each part's own score, and its weight in the whole."
    return Section("parts", "What it is made of", lead, open_tables=found)


def _learning(reports: Sequence[RunReport]) -> Section | None:
    trained = [r for r in reports if r.history]
    if not trained:
        return None
    return Section(
        "learning",
        "Learning",
        "How validation went while the model learnt.",
        figures.learning(reports),
        tables=[tables.history(r) for r in trained],
    )


def _ranking(reports: Sequence[RunReport]) -> Section:
    lead = "How well clicks are told from non-clicks, at every threshold."
    return Section("ranking", "Ranking", lead, figures.ranking(reports))


def _reliability(reports: Sequence[RunReport]) -> Section:
    lead = "Whether what is predicted is what happens."
    return Section("reliability", "Reliability", lead, figures.calibration(reports))


def _slices(reports: Sequence[RunReport]) -> Section | None:
    fields = list(dict.fromkeys(name for r in reports for name in r.slices))
    if not fields:
        return None
    plotted = [
        name
        for name in fields
        if any(np.isfinite(s.auc) for r in reports for s in r.slices.get(name, ()))
    ]
    return Section(
        "where",
        "Where it works",
        "The same model, apart for each value of a field."
        + ("" if plotted else " There are too few clicks to tell."),
        [bars.sliced(reports, name, f"slice-{i}") for i, name in enumerate(plotted)],
        tables=[tables.sliced(r, name) for name in fields for r in reports if name in r.slices],
    )


def _importance(reports: Sequence[RunReport]) -> Section | None:
    permuted = [r for r in reports if r.importance]
    boosted = [r for r in reports if r.gain]
    plots = (
        bars.importances(reports) if permuted else None,
        bars.attended(reports),
        bars.gains(reports) if boosted else None,
    )
    shown = [plot for plot in plots if plot is not None]
    if not shown:
        return None
    return Section(
        "why",
        "What it looks at",
        "Which fields and which events the predictions rest on.",
        shown,
        tables=[*map(tables.importances, permuted), *map(tables.gains, boosted)],
    )


def _data(reports: Sequence[RunReport]) -> Section | None:
    # Runs on the same data share their plots and tables: the first run's are shown.
    datasets: dict[str, tuple[str, Distributions]] = {}
    for r in reports:
        if r.stored:
            datasets.setdefault(r.runs[0].encoder.hash, (r.name, r.stored.distributions))
    if not datasets:
        return None
    return Section(
        "data",
        "The data",
        "What the histories hold, and whether test looks like train.",
        [p for i, (_, found) in enumerate(datasets.values()) for p in _data_plots(found, i)],
        tables=[tables.drifts(*of) for of in datasets.values()],
    )


def _data_plots(found: Distributions, number: int) -> list[Plot]:
    plots = [
        bars.lengths(found, field, f"lengths-{number}-{i}")
        for i, field in enumerate(list(found.lengths)[:1])  # those of one history are alike
    ]
    plots += [
        bars.tokens(found, field, f"tokens-{number}-{i}") for i, field in enumerate(found.tokens)
    ]
    return [*plots, bars.drifted(found, f"drift-{number}")] if found.drift else plots


def _cost(reports: Sequence[RunReport]) -> Section:
    lead = "What each step took."
    return Section("cost", "Time and memory", lead, open_tables=[tables.steps(reports)])


def _settings(reports: Sequence[RunReport]) -> Section:
    parts = {name: run for r in reports for name, run in r.parts.items()}
    differing, everything = tables.config(reports)
    several = len(reports) > 1
    return Section(
        "config",
        "Settings and files",
        "Everything needed to do it again."
        + (" The runs have the same settings." if several and differing is None else ""),
        tables=[
            everything,
            *(tables.fields(name, run) for name, run in parts.items()),
            *map(tables.hashes, reports),
        ],
        open_tables=[differing] if several and differing else [],
        folded="All settings, fields and hashes",
    )


BUILDERS: tuple[Callable[[Sequence[RunReport]], Section | None], ...] = (
    _members,
    _learning,
    _ranking,
    _reliability,
    _slices,
    _importance,
    _data,
    _cost,
    _settings,
)
