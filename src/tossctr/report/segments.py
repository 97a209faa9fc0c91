"""Click rates and AUC by segment: slot, hour, age group and history length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.data.rows import EncodedRows
from tossctr.inference.predict import FittedModel
from tossctr.report.delong import auc_interval
from tossctr.report.distributions import token_name
from tossctr.report.sample import Scored

PREFERRED = ("inventory_id", "hour", "age_group")
FIELDS = 3
VALUES = 24  # the most frequent values of a field; all others form one segment
MIN_CLICKS = 5  # of both classes, else a segment has no AUC
REST = "rest"


@dataclass(frozen=True)
class Segment:
    """Held-out rows that share a value.

    Attributes:
        rate, predicted: click rate and mean prediction.
        auc, half_width: AUC within the segment and half its 95 % interval; NaN if there are too few
            clicks.
    """

    name: str
    rows: int
    clicks: int
    rate: float
    predicted: float
    auc: float
    half_width: float


def segments(run: FittedModel, valid: EncodedRows, scored: Scored) -> dict[str, list[Segment]]:
    """Segments by up to `FIELDS` categorical fields, and by the length of the longest sequence."""
    features = valid.features
    named = features.names("categorical")
    small = [n for n in named if 3 < (features[n].vocab_size or 0) <= 2 * VALUES]
    chosen = [n for n in PREFERRED if n in named] or small
    found = {}
    for name in chosen[:FIELDS]:
        ids = np.asarray(valid.ids(name)[scored.row]).astype(np.int64)
        found[name] = _by_value(run, name, ids, scored)
    if valid.sequences:
        lengths = np.max(
            [array.offsets[scored.row + 1] - array.offsets[scored.row]
             for array in valid.sequences.values()],
            axis=0,
        )  # fmt: skip
        found["history length"] = _by_length(lengths, scored)
    return found


def _by_value(run: FittedModel, name: str, ids: NDArray[np.int64], scored: Scored) -> list[Segment]:
    values, counts = np.unique(ids, return_counts=True)
    common = values[np.argsort(-counts, kind="stable")][:VALUES]
    found = [_segment(token_name(run.encoder, name, int(v)), ids == v, scored) for v in common]
    found.sort(key=lambda one: order(one.name))
    rest = ~np.isin(ids, common)
    return [*found, _segment(REST, rest, scored)] if rest.any() else found


def order(name: str) -> tuple[int, float, str]:
    """Sort key of segments: numbers and ranges by size, then texts, then the rest."""
    if name == REST:
        return (2, 0.0, name)
    try:
        return (0, float(name.split("–")[0].replace(",", "")), name)
    except ValueError:
        return (1, 0.0, name)


def _by_length(lengths: NDArray[np.int64], scored: Scored) -> list[Segment]:
    found, low, high = [], 0, 0
    top = int(lengths.max())
    while low <= top:
        inside = (lengths >= low) & (lengths <= high)
        if inside.any():
            found.append(
                _segment(f"{low:,}" if low == high else f"{low:,}–{high:,}", inside, scored)
            )
        low, high = high + 1, 32 if high == 0 else 2 * high
    return found


def _segment(name: str, inside: NDArray[Any], scored: Scored) -> Segment:
    label, logit = scored.label[inside], scored.logit[inside]
    clicks = int(label.sum())
    auc, half = float("nan"), float("nan")
    if min(clicks, len(label) - clicks) >= MIN_CLICKS:
        auc, half = auc_interval(label, logit)
    return Segment(
        name, len(label), clicks, float(label.mean()), float(expit(logit).mean()), auc, half
    )
