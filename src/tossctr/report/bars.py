"""Plots by field, value and event: segments, importance, attention and distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from tossctr.data.health.drift import LARGE_DRIFT
from tossctr.report.distributions import Distributions
from tossctr.report.run_report import RunReport
from tossctr.report.segments import order
from tossctr.report.svg import DASHED, INK, MUTED, SERIES, Plot, plot
from tossctr.report.tables import number


def _dots(
    axes: Axes,
    names: Sequence[str],
    series: Sequence[Sequence[tuple[float, float]]],
    colours: Sequence[str],
) -> None:
    """One line per name, with a dot and an error bar per run."""
    positions = np.arange(len(names))[::-1]
    for i, (values, colour) in enumerate(zip(series, colours, strict=True)):
        shift = (i - (len(series) - 1) / 2) * min(0.7 / len(series), 0.22)
        x = np.array([value for value, _ in values])
        half = np.array([h if np.isfinite(h) else 0.0 for _, h in values])
        axes.errorbar(x, positions - shift, xerr=half, fmt="o", color=colour, markersize=4.5,
                      elinewidth=1.2)  # fmt: skip
    _label_rows(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _label_rows(axes: Axes, names: Sequence[str], characters: int = 40) -> None:
    """Names on the y-axis, from top to bottom, cut to a number of characters."""
    short = [n if len(n) <= characters else n[: characters - 1] + "…" for n in names]
    axes.set_yticks(np.arange(len(names))[::-1], short)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _shares(axes: Axes, names: Sequence[str], characters: int, label: str) -> None:
    """Label the axes of horizontal bars that show shares."""
    _label_rows(axes, names, characters)
    axes.set_xlim(0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(label)


def _coloured(
    reports: Sequence[RunReport], chosen: Callable[[RunReport], Any]
) -> list[tuple[RunReport, str]]:
    """The reports for which `chosen` is true, each with its run's colour."""
    return [(r, c) for r, c in zip(reports, SERIES, strict=False) if chosen(r)]


def _tall(rows: int, runs: int = 1) -> float:
    return 0.75 + (0.2 + 0.05 * runs) * max(rows, 3)


def segments(reports: Sequence[RunReport], field: str, name: str) -> Plot:
    """AUC by value of a field."""
    of, colours = zip(*_coloured(reports, lambda r: field in r.segments), strict=True)
    names = sorted({s.name for r in of for s in r.segments[field]}, key=order)
    by = [{s.name: s for s in r.segments[field]} for r in of]
    shown = [n for n in names if any(n in s and np.isfinite(s[n].auc) for s in by)]
    missing = (float("nan"), float("nan"))
    series = [[(s[n].auc, s[n].half_width) if n in s else missing for n in shown] for s in by]

    def draw(axes: Axes) -> None:
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=DASHED)
        for report, colour in zip(of, colours, strict=True):
            axes.axvline(report.metrics["AUC"], color=colour, linewidth=1, alpha=0.5)
        _dots(axes, shown, series, colours)
        axes.set_xlim(max(0.0, min(0.45, axes.get_xlim()[0])), 1.0)
        axes.set_xlabel("AUC")

    described = "; ".join(
        f"{n}: " + ", ".join(number(s[n].auc, 3) for s in by if n in s) for n in shown
    )
    left_out = len(names) - len(shown)
    note = f"{left_out} of {len(names)} have too few clicks. " if left_out else ""
    return plot(
        name, field, f"AUC by {field}. {described}.", draw,
        note=note + "With 95 % intervals; solid line: AUC over all rows.",
        height_in=_tall(len(shown), len(of)),
    )  # fmt: skip


def importances(reports: Sequence[RunReport]) -> Plot:
    """Decrease in AUC when a field is shuffled."""
    of, colours = zip(*_coloured(reports, lambda r: r.importance), strict=True)
    names = list(dict.fromkeys(one.name for r in of for one in r.importance))
    by = [{one.name: (one.drop, one.half_width) for one in r.importance} for r in of]
    series = [[s.get(n, (float("nan"), 0.0)) for n in names] for s in by]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=1)
        _dots(axes, names, series, colours)
        axes.set_xlabel("decrease in AUC")

    described = "; ".join(
        f"{r.name}: " + ", ".join(f"{o.name} {o.drop:.4f}" for o in r.importance[:5]) for r in of
    )
    return plot(
        "permutation", "Permutation importance",
        f"Decrease in AUC when a field is shuffled. {described}.", draw,
        note=f"Decrease in AUC when a field is shuffled, on {of[0].importance_rows:,} validation "
        "rows, with 95 % intervals. Correlated fields share their importance.",
        height_in=_tall(len(names), len(of)),
    )  # fmt: skip


def gains(reports: Sequence[RunReport], shown: int = 15) -> Plot:
    """The columns with the largest share of the split gain."""
    of = _coloured(reports, lambda r: r.gain)
    names = list(dict.fromkeys(name for r, _ in of for name in list(r.gain)[:shown]))

    def draw(axes: Axes) -> None:
        positions = np.arange(len(names))[::-1]
        high = 0.62 / len(of)
        for i, (report, colour) in enumerate(of):
            at = positions - (i - (len(of) - 1) / 2) * high
            axes.barh(at, [report.gain.get(n, 0.0) for n in names], 0.9 * high, color=colour,
                      alpha=0.55, linewidth=0)  # fmt: skip
        _shares(axes, names, 24, "share of total gain")

    described = "; ".join(
        f"{r.name}: " + ", ".join(f"{n} {s:.0%}" for n, s in list(r.gain.items())[:5])
        for r, _ in of
    )
    return plot(
        "gain", "Gain importance", f"Share of the total split gain, by column. {described}.",
        draw, note="Share of the loss reduction of all splits. Columns are derived from fields.",
        height_in=_tall(len(names), len(of)),
    )  # fmt: skip


def attended(reports: Sequence[RunReport]) -> Plot | None:
    """Attention to events by age, relative to uniform attention."""
    of = [(r.name, c, r.attention) for r, c in _coloured(reports, lambda _: True) if r.attention]
    if not of:
        return None
    widest = max((found for _, _, found in of), key=lambda a: a.high[-1])
    names = [str(a) if a == b else f"{a}–{b}" for a, b in zip(widest.low, widest.high, strict=True)]

    def draw(axes: Axes) -> None:
        axes.axhline(1, color=MUTED, linewidth=1, linestyle=DASHED)
        for _, colour, found in of:
            axes.plot(found.relative, "o-", color=colour, markersize=4)
        axes.set_xticks(np.arange(len(names)), names)
        axes.grid(axis="x", visible=False)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.8), max(high, 1.2))
        axes.set_xlabel("event age (1 is the newest)")
        axes.set_ylabel("relative to uniform")

    described = "; ".join(
        f"{run}: "
        + ", ".join(f"age {n} {v:.2f}" for n, v in zip(names, found.relative, strict=False))
        for run, _, found in of
    )
    return plot(
        "attention", "Attention by event age",
        f"Attention to past events, relative to uniform attention. {described}.", draw,
        note="Mean over blocks, heads and rows. Dashed: uniform attention.",
    )  # fmt: skip


def lengths(found: Distributions, field: str, name: str) -> Plot:
    """Distribution of history lengths, train against test."""
    train, other = found.lengths[field]
    top = max(float(np.quantile(train, 0.995)), float(np.quantile(other, 0.995)), 4.0)
    step = max(round(top / 40), 1)
    edges = np.arange(0, top + step, step)
    top = float(edges[-1])
    limit = found.max_len[field]

    def draw(axes: Axes) -> None:
        for values, colour, text in ((train, SERIES[0], "train"), (other, SERIES[1], found.other)):
            share = np.histogram(np.minimum(values, top), edges)[0] / len(values)
            axes.stairs(share, edges, color=colour, linewidth=1.5)
            axes.annotate(text, (0.99, 0.97 - 0.1 * (colour == SERIES[1])), color=colour,
                          xycoords="axes fraction", ha="right", va="top")  # fmt: skip
        if limit is not None and limit < top:
            axes.axvline(limit, color=INK, linewidth=1, linestyle=DASHED)
            axes.annotate(f"max_len {limit}", (limit, 0.98), (4, 0), color=INK, va="top",
                          xycoords=("data", "axes fraction"), textcoords="offset points",
                          fontsize=9.5)  # fmt: skip
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x", visible=False)
        axes.set_xlim(0, top)
        axes.set_ylim(0)
        axes.set_xlabel("events per history")
        axes.set_ylabel("share of rows")

    truncated = 0.0 if limit is None else float((train > limit).mean())
    text = (
        f"Median length {np.median(train):,.0f} in train and {np.median(other):,.0f} in "
        f"{found.other}; {truncated:.0%} of the training histories are truncated."
    )
    return plot(name, f"Length of {field}", text, draw, note=text)


def tokens(found: Distributions, field: str, name: str) -> Plot:
    """The most frequent events and their shares."""
    frequent = found.tokens[field]

    def draw(axes: Axes) -> None:
        positions = np.arange(len(frequent.names))[::-1]
        axes.barh(positions, frequent.train, 0.7, color=SERIES[0], alpha=0.35, linewidth=0)
        axes.plot(frequent.other, positions, "o", color=SERIES[1], markersize=5)
        _shares(axes, frequent.names, 14, "share of events")

    described = ", ".join(
        f"{n} {s:.1%}" for n, s in zip(frequent.names[:5], frequent.train, strict=False)
    )
    return plot(
        name, f"Most frequent events of {field}",
        f"These {len(frequent.names)} events are {sum(frequent.train):.0%} of all. {described}.",
        draw, note=f"Bars: train. Dots: {found.other}.", height_in=_tall(len(frequent.names)),
    )  # fmt: skip


def drifted(found: Distributions, name: str, shown: int = 12) -> Plot:
    """The fields with the largest drift."""
    names = list(found.drift)[:shown]
    values = np.array([found.drift[n] for n in names])

    def draw(axes: Axes) -> None:
        positions = np.arange(len(names))[::-1]
        floor = 1e-4
        axes.set_xscale("log")
        axes.barh(positions, np.maximum(values, floor) - floor, 0.62, left=floor, color=SERIES[0],
                  alpha=0.55, linewidth=0)  # fmt: skip
        axes.axvline(LARGE_DRIFT, color=INK, linewidth=1, linestyle=DASHED)
        axes.set_xlim(floor, max(1.0, 1.5 * float(values.max())))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        _label_rows(axes, names)
        axes.set_xlabel("population stability index")

    large = [n for n in names if found.drift[n] > LARGE_DRIFT]
    above = f"above {LARGE_DRIFT}: {', '.join(large) or 'none'}"
    return plot(
        name, f"Drift from train to {found.other}",
        f"Population stability index by field; {above}.", draw,
        note=f"Dashed: {LARGE_DRIFT}, the usual threshold of drift. Log scale.",
        height_in=_tall(len(names)),
    )  # fmt: skip
