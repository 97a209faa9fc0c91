"""The main findings about a run, as sentences with advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tossctr.data.health.drift import LARGE_DRIFT
from tossctr.metrics.ceiling import lift
from tossctr.report.run_report import RunReport

OVERFIT = 0.85  # a lower ratio of training loss to validation loss is overfitting
TRUNCATED = 0.2  # share of truncated histories that is worth a note
UNIFORM = 0.1  # attention within this of the uniform weight counts as uniform
FEW_CLICKS = 300


@dataclass(frozen=True)
class Finding:
    """`mark`: `good`, `watch` (needs action) or `note`."""

    mark: Literal["good", "watch", "note"]
    text: str
    remedy: str = ""


def shared(found: Sequence[Sequence[Finding]]) -> tuple[list[Finding], list[list[Finding]]]:
    """The findings that all of several runs share, and the others of each run."""
    if len(found) == 1:
        return [], [list(found[0])]
    common = [one for one in found[0] if all(one in others for others in found)]
    return common, [[one for one in of_run if one not in common] for of_run in found]


def findings(report: RunReport) -> list[Finding]:
    """The findings about a run, the most important first."""
    topics = (
        _score, _members, _calibrated, _learning, _history, _fields, _drift, _left_out,
    )  # fmt: skip
    return [one for topic in topics for one in topic(report) if one is not None]


def _score(report: RunReport) -> list[Finding | None]:
    auc, known, half = report.metrics["AUC"], report.attainable, report.half_width["AUC"]
    if auc - half <= 0.5:
        found = Finding(
            "watch",
            f"The ranking is not significantly better than chance: the AUC is {auc:.4f} ± "
            f"{min(half, 0.5):.3f}.",
            "Check that the loss decreases during training, and run `tossctr check` on the data.",
        )
    elif known is not None:
        found = Finding(
            "note",
            f"The AUC of {auc:.4f} is {lift(auc, known['AUC']):.0%} of the way from chance (0.5) "
            f"to the attainable {known['AUC']:.4f}.",
        )
    else:
        found = Finding(
            "note", f"The AUC is {auc:.4f}: the chance that a click outranks a non-click."
        )
    clicks = int(report.scored.label.sum())
    interval = Finding(
        "note",
        f"{clicks:,} clicks in {len(report.scored.label):,} held-out rows: the 95 % interval of "
        f"the AUC is ± {min(half, 0.5):.3f}.",
        "Smaller differences may be due to chance." if clicks < FEW_CLICKS else "",
    )
    return [found, interval, _chosen_on(report)]


def _chosen_on(report: RunReport) -> Finding | None:
    """What was selected on the rows that the metrics are measured on."""
    unit = report.family.epoch_unit
    if report.members is not None and report.members.gain is not None:
        what = "The members' checkpoints and the blending method were"
    elif report.members is not None:
        what = f"The best {unit} of each fold was"
    elif len(report.history) > 1:
        what = f"The best {unit} was"
    else:
        return None
    return Finding(
        "note", f"{what} chosen on these rows: expect slightly worse scores on new rows."
    )


def _members(report: RunReport) -> list[Finding | None]:
    found = report.members
    if found is None:
        return []
    if found.gain is None:
        return [Finding("note", found.summary)]
    mean, _, error = found.gain
    if mean > 2 * error:
        return [Finding("good", found.summary)]
    remedy = f"The blend is not significantly better: {found.best_single} alone may be as good."
    return [Finding("watch", found.summary, remedy)]


def _calibrated(report: RunReport) -> list[Finding | None]:
    if report.objective == "raw":
        return []
    metric, method = report.aim.metric, report.calibration.calibrator.method
    raw, after = report.metrics[metric], report.best["calibrated"]
    if metric == "logloss":
        if method == "shift":
            text = (
                "No calibration map significantly lowers the log loss on held-out rows: "
                "the raw probabilities are kept."
            )
        else:
            text = f"Calibration ({method}) changes the log loss from {raw:.5f} to {after:.5f}."
        return [Finding("note", text)]
    constant = report.baseline[metric]
    if after - raw < 0.005:
        return []
    below = f", below the baseline's {constant:.4f}" if raw < constant else ""
    return [
        Finding(
            "note",
            f"Raw predictions score {raw:.4f}{below}: they estimate the click rate, while the "
            f"competition weights both classes equally. Calibrated, they score {after:.4f}.",
            "Use `--objective competition_score` for the score, `--objective logloss` for click "
            "rates.",
        )
    ]


def _learning(report: RunReport) -> list[Finding | None]:
    if not report.history:
        return []
    return [_peak(report), _overfit(report)]


def _peak(report: RunReport) -> Finding | None:
    history, best = report.history, report.kept
    unit = report.family.epoch_unit
    if len(history) == 1:
        text = "There was only one validation: whether longer training would help is unknown."
        return Finding("note", text)
    if best["step"] == history[-1]["step"]:
        return Finding(
            "watch",
            "The last validation was the best: longer training may help.",
            report.family.advice_if_last_was_best(report.experiment, history),
        )
    if best["step"] == history[0]["step"]:
        return Finding(
            "watch",
            f"The first of {len(history)} validations was the best ({unit} {best['epoch']:.0f} of "
            f"{history[-1]['epoch']:.0f}): further training made the model worse.",
            report.family.advice_if_first_was_best,
        )
    return Finding(
        "good",
        f"The monitor peaked in {unit} {best['epoch']:.0f} of {history[-1]['epoch']:.0f}, and that "
        "model was kept.",
    )


def _overfit(report: RunReport) -> Finding | None:
    training, best = report.experiment.training, report.kept
    if training.loss != "binary_crossentropy" or training.negative_sampling < 1:
        return None  # training and validation loss are not comparable
    steps, loss = report.train_loss
    until = loss[steps <= best["step"]][-25:]
    if len(until) < 25 or until.mean() >= OVERFIT * best["logloss"]:
        return None
    return Finding(
        "watch",
        f"The training loss ({until.mean():.4f}) is far below the validation loss "
        f"({best['logloss']:.4f}): the model overfits, or training and validation rows differ.",
        "Try more dropout or regularisation, or a smaller model.",
    )


def _history(report: RunReport) -> list[Finding | None]:
    found: list[Finding | None] = []
    data = report.data.distributions if report.data else None
    for field, (train, _) in data.lengths.items() if data else ():
        limit = data.max_len[field] if data else None
        truncated = 0.0 if limit is None else float((train > limit).mean())
        if truncated > TRUNCATED:
            text = f"{truncated:.0%} of the histories in {field} are truncated to {limit} events"
            found.append(Finding("note", f"{text} (`max_len`)."))
    if report.attention is not None:
        ratio = report.attention.relative
        top = int(ratio.argmax())
        low, high = report.attention.low[top], report.attention.high[top]
        events = f"event {low}" if low == high else f"events {low} to {high}"
        text = "Attention is almost uniform over recent and old events."
        if ratio.max() - 1 > UNIFORM:
            text = (
                f"Attention is highest at {events} (1 is the newest): {ratio[top]:.1f} times the "
                "uniform weight."
            )
        found.append(Finding("note", text))
    return found


def _fields(report: RunReport) -> list[Finding | None]:
    found = report.importance
    if report.members is not None:
        return []
    if not found or found[0].drop <= found[0].half_width:
        rows = report.importance_rows
        return [
            Finding("note", f"No field shows a measurable effect when shuffled, on {rows:,} rows.")
        ]
    without = sum(one.drop <= one.half_width for one in found)
    text = f"The most important field is {found[0].name}: shuffling it lowers the AUC by "
    text += f"{found[0].drop:.3f}."
    if without:
        text += f" {without} of {len(found)} fields and groups of fields show no measurable effect "
        text += f"on {report.importance_rows:,} rows."
    return [Finding("note", text)]


def _drift(report: RunReport) -> list[Finding | None]:
    if report.data is None or not report.data.distributions.drift:
        return []
    found, other = report.data.distributions, report.data.distributions.other
    large = [n for n, index in found.drift.items() if index > LARGE_DRIFT]
    limit = f"population stability index above {LARGE_DRIFT:g}"
    if not large:
        return [Finding("good", f"No drift between train and {other} (no {limit}).")]
    names = ", ".join(large[:4]) + (f" and {len(large) - 4} more" if len(large) > 4 else "")
    # No advice: a field with drift may still be the strongest one.
    return [Finding("note", f"Drift between train and {other} ({limit}): {names}.")]


def _left_out(report: RunReport) -> list[Finding | None]:
    """What the report cannot show."""
    found: list[Finding | None] = []
    if report.members is not None:
        text = "Learning curves, attention and field importance are only shown for a single run."
        found.append(Finding("note", text, "Run `tossctr report` on one of the runs."))
    if report.data is None:
        text = "The prepared data were not found: segments and drift are left out."
        found.append(Finding("note", text, "Run `tossctr prepare`."))
    return found
