"""The curves of a report, each with all runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from numpy.typing import NDArray
from scipy.special import logit as log_odds
from sklearn.metrics import precision_recall_curve, roc_curve

from tossctr.metrics.reliability import Bin, reliability
from tossctr.report.run_report import RunReport
from tossctr.report.svg import DASHED, MUTED, SERIES, Plot, plot

Floats = NDArray[np.float64]
POINTS = 240  # of a curve
BINS, CLICKS_PER_BIN = (5, 15), 10  # of reliability diagrams: fewer bins if there are few clicks
SMOOTHED = 25  # maximum window of the moving average of logged losses


def _thin(*curves: Floats) -> list[Floats]:
    """`POINTS` evenly spaced points of curves with the same x, including both ends."""
    take = np.unique(np.linspace(0, len(curves[0]) - 1, POINTS).round().astype(int))
    return [curve[take] for curve in curves]


def _label_end(axes: Axes, x: float, y: float, text: str, colour: str, *, left: bool) -> None:
    axes.annotate(
        text, (x, y), (-5 if left else 5, 4), textcoords="offset points", color=colour,
        ha="right" if left else "left", fontsize=9.5,
    )  # fmt: skip


def learning(reports: Sequence[RunReport]) -> list[Plot]:
    """Validation AUC and both losses of single runs, one pair of plots per unit of the x-axis."""
    by_step: dict[str, list[tuple[RunReport, str]]] = {}
    for report, colour in zip(reports, SERIES, strict=False):
        if report.history:
            by_step.setdefault(report.family.step_unit, []).append((report, colour))
    several = len(by_step) > 1
    return [
        shown
        for number, (step, of) in enumerate(by_step.items())
        for shown in _learning(of, f"-{number}", step, f" by {step}" if several else "")
    ]


def _learning(
    of: Sequence[tuple[RunReport, str]], suffix: str, step: str, title: str
) -> list[Plot]:
    def auc(axes: Axes) -> None:
        for report, colour in of:
            steps = [row["step"] for row in report.history]
            values = [row["AUC"] for row in report.history]
            axes.plot(steps, values, "o-", color=colour, markersize=_marker(steps))
            best = report.kept
            axes.plot(best["step"], best["AUC"], "o", color=colour, markersize=9, alpha=0.35)
        _steps(axes, "AUC", step)

    def losses(axes: Axes) -> None:
        low: list[float] = []
        high: list[float] = []
        for report, colour in of:
            steps, loss = report.train_loss
            if len(loss):
                window = min(SMOOTHED, len(loss) // 4 + 1)
                mean = np.convolve(loss, np.full(window, 1 / window), "valid")
                x, y = _thin(steps[window - 1 :], mean)
                axes.plot(x, y, color=colour, linewidth=1.1, alpha=0.55)
                low.append(float(y.min()))
                high.append(float(np.quantile(y, 0.9)))
            values = [row["logloss"] for row in report.history]
            low.append(min(values))
            high.append(max(values))
            at = [row["step"] for row in report.history]
            axes.plot(at, values, "o-", color=colour, markersize=_marker(at))
        pad = 0.08 * (max(high) - min(low)) or 0.01
        axes.set_ylim(min(low) - pad, max(high) + 2 * pad)
        _steps(axes, "log loss", step)

    described = "; ".join(
        f"{r.name}: AUC {r.history[0]['AUC']:.4f} at the first of {len(r.history)} validations, "
        f"{r.kept['AUC']:.4f} at the best, in {r.family.epoch_unit} {r.kept['epoch']:.0f}"
        for r, _ in of
    )
    trained = any(len(r.train_loss[0]) for r, _ in of)
    losses_of = "Training and validation" if trained else "Validation"
    return [
        plot(f"auc{suffix}", f"Validation AUC{title}",
             f"Validation AUC over training. {described}.", auc, note="Large point: kept model."),
        plot(f"loss{suffix}", f"Loss{title}", f"{losses_of} log loss. {described}.", losses,
             note="Points: validation. Thin line: training, smoothed." if trained
             else "Validation rows only."),
    ]  # fmt: skip


def _marker(points: Sequence[float]) -> float:
    return 4 if len(points) <= 40 else 0


def _steps(axes: Axes, name: str, step: str) -> None:
    axes.set_xlabel(step)
    axes.set_ylabel(name)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(0, 1.03 * axes.dataLim.x1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def ranking(reports: Sequence[RunReport]) -> list[Plot]:
    """ROC and precision-recall curves, with chance and, if known, the attainable curve."""
    truth = reports[0].truth

    def roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED)
        _label_end(axes, 0.62, 0.53, "chance", MUTED, left=False)
        if truth is not None:
            x, y = _roc(reports[0].scored.label, log_odds(truth))
            axes.plot(x, y, color=MUTED, linewidth=1.2)
        for report, colour in zip(reports, SERIES, strict=False):
            axes.plot(*_roc(report.scored.label, report.scored.logit), color=colour)
        _unit(axes, "false positive rate", "true positive rate")
        axes.set_ylim(0, 1.01)

    def pr(axes: Axes) -> None:
        prior = float(reports[0].scored.label.mean())
        axes.axhline(prior, color=MUTED, linewidth=1, linestyle=DASHED)
        top = prior
        if truth is not None:
            x, y = _pr(reports[0].scored.label, log_odds(truth))
            axes.plot(x, y, color=MUTED, linewidth=1.2)
            top = max(top, float(y[x >= 0.05].max()))
        for report, colour in zip(reports, SERIES, strict=False):
            x, y = _pr(report.scored.label, report.scored.logit)
            axes.plot(x, y, color=colour)
            top = max(top, float(y[x >= 0.05].max()))
        _unit(axes, "recall", "precision")
        axes.set_ylim(0, min(1.0, 1.25 * top) + 0.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if top > 0.04 else 1))

    auc = ", ".join(f"{r.name} {r.metrics['AUC']:.4f}" for r in reports)
    ap = ", ".join(f"{r.name} {r.metrics['AP']:.4f}" for r in reports)
    known = reports[0].attainable
    ceiling = {} if known is None else {k: f" Attainable: {known[k]:.4f}." for k in ("AUC", "AP")}
    grey = "" if truth is None else "Grey: true probabilities. "
    return [
        plot("roc", "ROC curve", f"ROC curve. Area: {auc}.{ceiling.get('AUC', '')}", roc,
             note=f"{grey}Dashed: chance."),
        plot("pr", "Precision-recall curve",
             f"Precision-recall curve. Average precision: {ap}.{ceiling.get('AP', '')}", pr,
             note=f"{grey}Dashed: click rate. Below a recall of 5 %, with few rows, the curve "
             "may leave the plot."),
    ]  # fmt: skip


def _roc(label: Floats, score: Floats) -> list[Floats]:
    fpr, tpr, _ = roc_curve(label, score)
    return _thin(fpr, tpr)


def _pr(label: Floats, score: Floats) -> list[Floats]:
    precision, recall, _ = precision_recall_curve(label, score)
    grid = np.linspace(1, 0, POINTS)
    at = np.minimum(np.searchsorted(-recall, -grid, side="right"), len(recall)) - 1
    kept = grid >= 1 / label.sum()  # a recall of at least one click
    return [grid[kept], precision[at][kept]]


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def calibration(reports: Sequence[RunReport]) -> list[Plot]:
    """Reliability of raw predictions, and before and after calibration for the objective."""

    def natural(axes: Axes) -> None:
        for report, colour in zip(reports, SERIES, strict=False):
            clicks = int(report.scored.label.sum())
            bins = int(np.clip(clicks / CLICKS_PER_BIN, *BINS))
            found = reliability(report.scored.label, _probability(report), bins)
            _bins(axes, [b for b in found.bins if b.clicks], colour)
            for b in found.bins:
                if not b.clicks:  # a log scale has no 0: draw only the interval's upper end
                    axes.plot([b.predicted] * 2, [b.high / 1e3, b.high], color=colour, linewidth=1)
        _diagonal(axes, reports)

    weighed = reports[0].aim.balanced

    def calibrated(axes: Axes) -> None:
        for report, colour in zip(reports, SERIES, strict=False):
            found = report.calibration.reliability
            # The log scale of click rates has no 0.
            before, after = (
                [b for b in (Bin(**of) for of in found[when]["bins"]) if weighed or b.clicks]
                for when in ("before", "after")
            )
            axes.plot([b.predicted for b in before], [b.observed for b in before], "o",
                      linestyle=DASHED, color=colour, markersize=3, linewidth=1,
                      markerfacecolor="none")  # fmt: skip
            _bins(axes, after, colour)
        if weighed:
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
            _unit(axes, "predicted", "observed (classes 50:50)")
            axes.set_ylim(0, 1)
        else:
            _diagonal(axes, reports)

    errors = ", ".join(
        f"{r.name} {reliability(r.scored.label, _probability(r)).error:.2%}" for r in reports
    )
    form = ".3f" if weighed else ".3%"
    gaps = ", ".join(
        f"{r.name} {r.calibration.reliability['before']['error']:{form}} before and "
        f"{r.calibration.reliability['after']['error']:{form}} after"
        for r in reports
    )
    trained = plot(
        "reliability", "Raw predictions",
        f"Reliability of the raw predictions; expected calibration error: {errors}.", natural,
        note="Bins with equal numbers of rows, with 95 % intervals. On the diagonal predicted and "
        "observed rates are equal.",
    )  # fmt: skip
    if reports[0].objective == "raw":
        return [trained]
    how = "Reliability with both classes weighed 50:50" if weighed else "Reliability"
    return [
        trained,
        plot("calibrated", "Calibrated for the competition score" if weighed else "Calibrated",
             f"{how}; expected calibration error: {gaps}.", calibrated,
             note="Dashed: raw predictions. Solid: calibrated out of fold."),
    ]  # fmt: skip


def _probability(report: RunReport) -> Floats:
    found: Floats = 1 / (1 + np.exp(-report.scored.logit))
    return found


def _bins(axes: Axes, bins: Sequence[Bin], colour: str) -> None:
    x, y = np.array([b.predicted for b in bins]), np.array([b.observed for b in bins])
    away = [y - [b.low for b in bins], [b.high for b in bins] - y]
    axes.errorbar(x, y, np.maximum(away, 0), color=colour, fmt="o-", markersize=4, elinewidth=1,
                  linewidth=1.4)  # fmt: skip


def _diagonal(axes: Axes, reports: Sequence[RunReport]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    lowest = min(float(np.quantile(_probability(r), 0.02)) for r in reports)
    low = min(lowest, min(float(r.scored.label.mean()) for r in reports) / 8)
    high = min(max(axes.dataLim.x1, axes.dataLim.y1) * 1.2, 1.0)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3) if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
