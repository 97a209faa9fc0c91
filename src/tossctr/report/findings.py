"""What stands out in a run, in sentences, each with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tossctr.data.health.drift import LARGE_DRIFT
from tossctr.metrics.ceiling import lift
from tossctr.report.run_report import RunReport
from tossctr.trees.config import LightGBMConfig

OVERFIT = 0.85  # training loss as a share of validation loss
CUT = 0.2  # share of histories that are longer than what the model sees
EVEN = 0.1  # attention within this of an even share is even
FEW_CLICKS = 300


@dataclass(frozen=True)
class Finding:
    """`mark`: `good`, `watch` (there is something to do) or `note`."""

    mark: Literal["good", "watch", "note"]
    text: str
    remedy: str = ""


def shared(found: Sequence[Sequence[Finding]]) -> tuple[list[Finding], list[list[Finding]]]:
    """What is the same for all of several runs, and the rest run by run."""
    common = [one for one in found[0] if all(one in others for others in found)]
    if len(found) == 1:
        return [], [list(found[0])]
    return common, [[one for one in of_run if one not in common] for of_run in found]


def findings(report: RunReport) -> list[Finding]:
    """The most important first."""
    every = (
        *_score(report),
        *_members(report),
        *_calibrated(report),
        *_learning(report),
        *_history(report),
        *_fields(report),
        *_drift(report),
        *_left_out(report),
    )
    return [one for one in every if one is not None]


def _score(report: RunReport) -> list[Finding | None]:
    auc, known, half = report.metrics["AUC"], report.attainable, report.half_width["AUC"]
    if auc - half <= 0.5:
        found = Finding(
            "watch",
            f"On these rows its ranking cannot be told from chance: the AUC is {auc:.4f} ± "
            f"{min(half, 0.5):.3f}.",
            "Look at the loss, and at the health of the data: `tossctr check`.",
        )
    elif known is not None:
        found = Finding(
            "note",
            f"It learns {lift(auc, known['AUC']):.0%} of the AUC that can be had above chance: "
            f"{auc:.4f} of {known['AUC']:.4f}.",
        )
    else:
        found = Finding("note", f"It ranks a click above a non-click {auc:.1%} of the time.")
    clicks = int(report.scored.label.sum())
    sure = Finding(
        "note",
        f"{clicks:,} clicks in {len(report.scored.label):,} held-out rows: the AUC is known to "
        f"± {min(half, 0.5):.3f} (95%).",
        "On other rows, a difference smaller than that may be luck." if clicks < FEW_CLICKS else "",
    )
    return [found, sure, _chosen_on(report)]


def _chosen_on(report: RunReport) -> Finding | None:
    """What the rows that are measured on were used to choose."""
    if report.members is not None and report.members.gain is not None:
        what = "Each member's epochs and the way to blend were"
    elif report.members is not None:
        what = "The epoch that each fold kept was"
    elif len(report.history) > 1:
        what = f"The {'round' if report.boosted else 'epoch'} that was kept was"
    else:
        return None
    return Finding("note", f"{what} chosen on these rows: on new rows expect a little less.")


def _members(report: RunReport) -> list[Finding | None]:
    found = report.members
    if found is None:
        return []
    if found.gain is None:
        return [Finding("note", found.said)]
    mean, _, error = found.gain
    if mean > 2 * error:
        return [Finding("good", found.said)]
    remedy = f"That may be luck: {found.best_single} alone may be as good."
    return [Finding("watch", found.said, remedy)]


def _calibrated(report: RunReport) -> list[Finding | None]:
    if report.objective == "raw":
        return []
    metric, method = report.aim.metric, report.calibration.calibrator.method
    raw, after = report.metrics[metric], report.best["calibrated"]
    if metric == "logloss":
        if method == "shift":
            text = (
                "No calibration map lowers the log loss of held-out rows beyond chance: "
                "probabilities stay as the model gives them."
            )
        else:
            text = f"Calibration ({method}) takes the log loss from {raw:.5f} to {after:.5f}."
        return [Finding("note", text)]
    constant = report.baseline[metric]
    if after - raw < 0.005:
        return []
    below = f", below the {constant:.4f} of a constant" if raw < constant else ""
    return [
        Finding(
            "note",
            f"Raw predictions score {raw:.4f}{below}: they are click rates, and the competition's "
            f"log loss weighs clicks and non-clicks alike. Calibrated they score {after:.4f}.",
            "`--objective competition_score` gives these probabilities, `--objective logloss` "
            "click rates.",
        )
    ]


def _learning(report: RunReport) -> list[Finding | None]:
    if not report.history:
        return []
    return [_peak(report), _overfit(report)]


def _peak(report: RunReport) -> Finding | None:
    history, best = report.history, report.kept
    unit = "round" if report.boosted else "epoch"
    if len(history) == 1:
        return Finding("note", "It was validated once: whether more training helps is not known.")
    if best["step"] == history[-1]["step"]:
        return Finding(
            "watch",
            "The last validation was the best one: it may not have gained all that it can.",
            _longer(report),
        )
    if best["step"] == history[0]["step"]:
        return Finding(
            "watch",
            f"The first of {len(history)} validations was the best one ({unit} {best['epoch']:.0f} "
            f"of {history[-1]['epoch']:.0f}), and that model was kept: what came after made it "
            "worse on these rows.",
            "Try a smaller `learning_rate`."
            if report.boosted
            else "Try a smaller `learning_rate`, or validations within an epoch (`eval_steps`).",
        )
    return Finding(
        "good",
        f"Validation peaked in {unit} {best['epoch']:.0f} of {history[-1]['epoch']:.0f}, and that "
        "model was kept.",
    )


def _longer(report: RunReport) -> str:
    """How to train longer than to the last validation."""
    options = report.experiment.hyperparameters
    if not isinstance(options, LightGBMConfig):
        return f"Try more `epochs`, now {report.experiment.training.epochs}."
    rounds = options.num_boost_round
    if report.history[-1]["epoch"] < rounds:
        return "No tree could split further: try a smaller `min_data_in_leaf`."
    return f"Try more `num_boost_round`, now {rounds}."


def _overfit(report: RunReport) -> Finding | None:
    training, best = report.experiment.training, report.kept
    if training.loss != "binary_crossentropy" or training.negative_sampling < 1:
        return None  # the two losses are not of the same kind, or of like rows
    steps, loss = report.train_loss
    until = loss[steps <= best["step"]][-25:]
    if len(until) < 25 or until.mean() >= OVERFIT * best["logloss"]:
        return None
    return Finding(
        "watch",
        f"The training loss ({until.mean():.4f}) is far below the validation loss "
        f"({best['logloss']:.4f}): it overfits, or the validation rows differ from those before.",
        "Try more dropout or regularisation, or a smaller model.",
    )


def _history(report: RunReport) -> list[Finding | None]:
    found: list[Finding | None] = []
    lengths = report.stored.distributions.lengths if report.stored else {}
    for field, (train, _) in lengths.items():
        assert report.stored is not None
        limit = report.stored.distributions.max_len[field]
        cut = 0.0 if limit is None else float((train > limit).mean())
        if cut > CUT:
            found.append(
                Finding("note", f"{cut:.0%} of the histories in {field} are longer than the "
                        f"{limit} events that the model sees (`max_len`).")
            )  # fmt: skip
    if report.attention is not None:
        ratio = np.array(report.attention.weight) / np.array(report.attention.even)
        top = int(ratio.argmax())
        low, high = report.attention.low[top], report.attention.high[top]
        ages = f"{low}" if low == high else f"{low} to {high}"
        if ratio.max() - 1 > EVEN:
            found.append(
                Finding("note", f"It attends most to events {ages} ago: {ratio[top]:.1f} times an "
                        "even share.")
            )  # fmt: skip
        else:
            found.append(
                Finding("note", "It attends to recent and old events almost alike.")
            )  # fmt: skip
    return found


def _fields(report: RunReport) -> list[Finding | None]:
    found = report.importance
    if report.members is not None:
        return []
    if not found or found[0].drop <= found[0].half_width:
        return [Finding("note", "No field stands out when shuffled, on so few rows.")]
    unsure = [one.name for one in found if one.drop - one.half_width <= 0]
    rest = (
        f" Of {len(found)} fields and families, {len(unsure)} show no effect beyond chance on the "
        f"{report.importance_rows:,} rows looked at."
        if unsure
        else ""
    )
    text = f"It leans most on {found[0].name}: shuffled, it costs {found[0].drop:.3f} of AUC.{rest}"
    return [Finding("note", text)]


def _drift(report: RunReport) -> list[Finding | None]:
    if report.stored is None or not report.stored.distributions.drift:
        return []
    found, other = report.stored.distributions, report.stored.distributions.other
    large = [n for n, index in found.drift.items() if index > LARGE_DRIFT]
    limit = f"population stability index above {LARGE_DRIFT:g}"
    if not large:
        return [Finding("good", f"No field differs much between train and {other} ({limit}).")]
    names = ", ".join(large[:4]) + (f" and {len(large) - 4} more" if len(large) > 4 else "")
    # No advice: a field that shifts may still be the strongest one.
    return [Finding("note", f"Different in train and {other} ({limit}): {names}.")]


def _left_out(report: RunReport) -> list[Finding | None]:
    """What there would be of a single run, or with its data."""
    found: list[Finding | None] = []
    if report.members is not None:
        found.append(
            Finding("note", "Learning curves, attention and the importance of fields are a single "
                    "run's, and left out here.", "Report on one of its runs to see them.")
        )  # fmt: skip
    if report.stored is None:
        found.append(
            Finding("note", "The prepared data are not at hand: slices and drift are left out.",
                    "`tossctr prepare` makes them.")
        )  # fmt: skip
    return found
