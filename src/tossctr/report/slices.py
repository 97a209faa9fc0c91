"""The score apart for each slot, hour, age group and length of history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.data.rows import EncodedRows
from tossctr.report.distributions import token_name
from tossctr.report.sample import Scored
from tossctr.report.uncertainty import auc_interval
from tossctr.runs.run_folder import Run

FIRST = ("inventory_id", "hour", "age_group")  # what people ask for, where a data set has it
FIELDS = 3
VALUES = 24  # of a field, the commonest; the rest together
MIN_CLICKS = 5  # fewer (or fewer non-clicks) tell nothing about an AUC
REST = "rest"


@dataclass(frozen=True)
class Slice:
    """Validation rows that share a value.

    Attributes:
        rate, predicted: share of clicks and mean prediction.
        auc, half_width: within the slice, with half its 95% interval; NaN where there are too few
            clicks.
    """

    name: str
    rows: int
    clicks: int
    rate: float
    predicted: float
    auc: float
    half_width: float


def slices(run: Run, valid: EncodedRows, scored: Scored) -> dict[str, list[Slice]]:
    """Of up to `FIELDS` categorical fields, and of the length of the longest sequence."""
    features = valid.features
    named = features.names("categorical")
    small = [n for n in named if 3 < (features[n].vocab_size or 0) <= 2 * VALUES]
    chosen = [n for n in FIRST if n in named] or small
    found = {}
    for name in chosen[:FIELDS]:
        ids = np.asarray(valid.ids(name)[scored.row]).astype(np.int64)
        found[name] = _of_categories(run, name, ids, scored)
    if valid.sequences:
        lengths = np.max(
            [array.offsets[scored.row + 1] - array.offsets[scored.row]
             for array in valid.sequences.values()],
            axis=0,
        )  # fmt: skip
        found["history length"] = _of_lengths(lengths, scored)
    return found


def _of_categories(run: Run, name: str, ids: NDArray[np.int64], scored: Scored) -> list[Slice]:
    values, counts = np.unique(ids, return_counts=True)
    common = values[np.argsort(-counts, kind="stable")][:VALUES]
    found = [_slice(token_name(run.encoder, name, int(v)), ids == v, scored) for v in common]
    found.sort(key=lambda one: order(one.name))
    rest = ~np.isin(ids, common)
    return [*found, _slice(REST, rest, scored)] if rest.any() else found


def order(name: str) -> tuple[int, float, str]:
    """Where a slice comes among others: numbers by size, ranges by their start, texts, the rest."""
    if name == REST:
        return (2, 0.0, name)
    try:
        return (0, float(name.split("–")[0].replace(",", "")), name)
    except ValueError:
        return (1, 0.0, name)


def _of_lengths(lengths: NDArray[np.int64], scored: Scored) -> list[Slice]:
    found, low, high = [], 0, 0
    top = int(lengths.max())
    while low <= top:
        inside = (lengths >= low) & (lengths <= high)
        if inside.any():
            found.append(_slice(f"{low:,}" if low == high else f"{low:,}–{high:,}", inside, scored))
        low, high = high + 1, 32 if high == 0 else 2 * high
    return found


def _slice(name: str, inside: NDArray[Any], scored: Scored) -> Slice:
    label, logit = scored.label[inside], scored.logit[inside]
    clicks = int(label.sum())
    auc, half = float("nan"), float("nan")
    if min(clicks, len(label) - clicks) >= MIN_CLICKS:
        auc, half = auc_interval(label, logit)
    return Slice(
        name, len(label), clicks, float(label.mean()), float(expit(logit).mean()), auc, half
    )
