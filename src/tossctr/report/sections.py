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
    folded: str = "Show as tables"


def sections(reports: Sequence[RunReport]) -> list[Section]:
    """The sections that have something to show, in the order of the page."""
    return [section for build in BUILDERS if (section := build(reports)) is not None]


def _members(reports: Sequence[RunReport]) -> Section | None:
    found = [tables.members(r.name, r.members) for r in reports if r.members is not None]
    if not found:
        return None
    lead = "The score and the weight of each member."
    return Section("members", "Folds and blend members", lead, open_tables=found)


def _learning(reports: Sequence[RunReport]) -> Section | None:
    trained = [r for r in reports if r.history]
    if not trained:
        return None
    return Section(
        "learning",
        "Learning curves",
        "Metrics and losses during training.",
        figures.learning(reports),
        tables=[tables.history(r) for r in trained],
    )


def _ranking(reports: Sequence[RunReport]) -> Section:
    lead = "How well clicks are separated from non-clicks, at every threshold."
    return Section("ranking", "Ranking", lead, figures.ranking(reports))


def _reliability(reports: Sequence[RunReport]) -> Section:
    lead = "How well predicted click rates match observed ones."
    return Section("reliability", "Reliability", lead, figures.calibration(reports))


def _segments(reports: Sequence[RunReport]) -> Section | None:
    fields = list(dict.fromkeys(name for r in reports for name in r.segments))
    if not fields:
        return None
    plotted = [
        name
        for name in fields
        if any(np.isfinite(s.auc) for r in reports for s in r.segments.get(name, ()))
    ]
    return Section(
        "segments",
        "AUC by segment",
        "The AUC within each value of a field."
        + ("" if plotted else " No segment has enough clicks."),
        [bars.segments(reports, name, f"segments-{i}") for i, name in enumerate(plotted)],
        tables=[tables.segments(r, name) for name in fields for r in reports if name in r.segments],
    )


def _importance(reports: Sequence[RunReport]) -> Section | None:
    permuted = [r for r in reports if r.importance]
    with_gain = [r for r in reports if r.gain]
    plots = (
        bars.importances(reports) if permuted else None,
        bars.attended(reports),
        bars.gains(reports) if with_gain else None,
    )
    shown = [plot for plot in plots if plot is not None]
    if not shown:
        return None
    return Section(
        "importance",
        "Feature importance",
        "Which fields and events the predictions depend on.",
        shown,
        tables=[*map(tables.importances, permuted), *map(tables.gains, with_gain)],
    )


def _data(reports: Sequence[RunReport]) -> Section | None:
    # Runs on the same data share their plots and tables: the first run's are shown.
    datasets: dict[str, tuple[str, Distributions]] = {}
    for r in reports:
        if r.data:
            datasets.setdefault(r.runs[0].encoder.hash, (r.name, r.data.distributions))
    if not datasets:
        return None
    return Section(
        "data",
        "Data",
        "History lengths, frequent events, and drift between train and test.",
        [p for i, (_, found) in enumerate(datasets.values()) for p in _data_plots(found, i)],
        tables=[tables.drifts(*of) for of in datasets.values()],
    )


def _data_plots(found: Distributions, number: int) -> list[Plot]:
    # Sequences of one history have the same lengths: the first is shown.
    plots = [bars.lengths(found, f, f"lengths-{number}-0") for f in list(found.lengths)[:1]]
    plots += [
        bars.tokens(found, field, f"tokens-{number}-{i}") for i, field in enumerate(found.tokens)
    ]
    return [*plots, bars.drifted(found, f"drift-{number}")] if found.drift else plots


def _cost(reports: Sequence[RunReport]) -> Section:
    lead = "The cost of each step."
    return Section("cost", "Time and memory", lead, open_tables=[tables.steps(reports)])


def _settings(reports: Sequence[RunReport]) -> Section:
    configs = {name: run for r in reports for name, run in r.configs.items()}
    differing, everything = tables.config(reports)
    several = len(reports) > 1
    return Section(
        "config",
        "Settings and files",
        "Everything needed to reproduce the results."
        + (" All runs have the same settings." if several and differing is None else ""),
        tables=[
            everything,
            *(tables.fields(name, run) for name, run in configs.items()),
            *map(tables.hashes, reports),
        ],
        open_tables=[differing] if several and differing else [],
        folded="All settings, fields and hashes",
    )


BUILDERS: tuple[Callable[[Sequence[RunReport]], Section | None], ...] = (
    _members, _learning, _ranking, _reliability, _segments, _importance, _data, _cost, _settings,
)  # fmt: skip
