"""What stands out in a run, in sentences, each with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tossctr.data.health.drift import LARGE_DRIFT
from tossctr.evaluation.ceiling import lift
from tossctr.report.run_report import RunReport

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
    auc, known = report.metrics["AUC"], report.attainable
    if known is not None:
        share = lift(auc, known["AUC"])
        found = Finding(
            "good" if share > 0.8 else "watch",
            f"It learns {share:.0%} of the AUC that can be had above chance: {auc:.4f} of "
            f"{known['AUC']:.4f}.",
            "" if share > 0.8 else "There is room: more rows, more epochs, or a larger model.",
        )
    elif auc > 0.5:
        found = Finding("note", f"It ranks a click above a non-click {auc:.1%} of the time.")
    else:
        found = Finding("watch", "It ranks no better than chance.", "Look at the loss, and at the "
                        "health of the data: `tossctr check`.")  # fmt: skip
    clicks = int(report.scored.label.sum())
    half = report.half_width["AUC"]
    sure = Finding(
        "note",
        f"{clicks:,} clicks in {len(report.scored.label):,} held-out rows: the AUC is sure to "
        f"± {min(half, 0.5):.3f} (95%).",
        "Differences smaller than that say nothing; compare on more rows."
        if clicks < FEW_CLICKS
        else "",
    )
    return [found, sure]


def _members(report: RunReport) -> list[Finding | None]:
    found = report.members
    if found is None:
        return []
    if found.gain is None:
        return [Finding("note", found.said)]
    mean, _, error = found.gain
    if mean > 2 * error:
        return [Finding("good", found.said)]
    return [Finding("watch", found.said, f"No more than luck: {found.best_single} alone may do.")]


def _calibrated(report: RunReport) -> list[Finding | None]:
    raw, after = report.metrics["competition_score"], report.best["calibrated_score"]
    constant = report.baseline["competition_score"]
    if after - raw < 0.005:
        return []
    below = f", below the {constant:.4f} of a constant" if raw < constant else ""
    return [
        Finding(
            "note",
            f"Raw predictions score {raw:.4f}{below}: they are click rates, and the competition's "
            f"log loss weighs clicks and non-clicks alike. Calibrated they score {after:.4f}.",
            "`predict` and `run` calibrate for it unless told `--objective raw`.",
        )
    ]


def _learning(report: RunReport) -> list[Finding | None]:
    if not report.history:
        return []
    history, best = report.history, report.kept
    training, unit = report.experiment.training, "round" if report.boosted else "epoch"
    found: list[Finding | None] = []
    if len(history) > 1 and best["step"] == history[-1]["step"]:
        found.append(
            Finding("watch", "It was still gaining when training ended.",
                    f"Raise `epochs`, which is {training.epochs}.")
        )  # fmt: skip
    elif len(history) > 1:
        found.append(
            Finding("good", f"Validation peaked in {unit} {best['epoch']:.0f} of "
                    f"{history[-1]['epoch']:.0f}, and that model was kept.")
        )  # fmt: skip
    steps, loss = report.train_loss
    until = loss[steps <= best["step"]][-25:]
    if len(until) == 25 and until.mean() < OVERFIT * best["logloss"]:
        found.append(
            Finding("watch", f"The training loss ({until.mean():.4f}) is far below the validation "
                    f"loss ({best['logloss']:.4f}): it learns rows by heart.",
                    "More dropout, more regularisation, or a smaller model.")
        )  # fmt: skip
    return found


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
                        f"{limit} events that the model sees.",
                        "Raise `max_len` if time allows.")
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
                Finding("note", "It attends to recent and old events almost alike: recency is not "
                        "what its attention is about.")
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
        f" Of {len(found)} fields and families, {len(unsure)} cannot be told from useless on the "
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
    if not large:
        return [Finding("good", f"No field has shifted between train and {other}.")]
    names = ", ".join(large[:4]) + (f" and {len(large) - 4} more" if len(large) > 4 else "")
    return [
        Finding(
            "watch",
            f"Shifted between train and {other}: {names}.",
            "Such a field may mislead: try without it (`active: false`).",
        )
    ]


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
