"""The model of synthetic clicks: everything that a click depends on.

    P(click) = sigmoid(BIAS + sum of the nine parts)

Tabular parts, of one row's own values:

    inventory        log of the slot's `CLICK_RATE`; with all parts 0.9 % for 2, 4.1 % for 41
    user             AGE[age_group] + GENDER[gender]
    hour             0.15 cos(2 pi (hour - 21) / 24): evenings click more
    numeric          six features, two of them not monotone in effect: see `numeric_part`
    inventory_x_age  0.20 group(inventory) x (+1 from age group 6 on, -1 below)

Sequence parts. Event j of n is n - 1 - j events before the impression and has the weight
r_j = exp(-(n - 1 - j) / RECENCY) / RECENCY, so that the newest 60 events carry 95 %:

    recent           STRENGTH["recent"]  x sum_j r_j INTEREST[e_j]
    recent_x_slot    STRENGTH["recent_x_slot"] x group(inventory) x sum_j r_j SLOT_INTEREST[e_j]
    order            STRENGTH["order"] x sum_j r_j [(e_{j-1}, e_j) in ORDERED]; not the reverse
    long_range       STRENGTH["long_range"] x (share of LONG_RANGE ids in the whole sequence,
                     shrunk towards its mean by 50 events, minus that mean)

`group` is +1 for the slots of 45 % of impressions and -1 for the others: an event that helps one
group hurts the other. Missing values count as 0. The `history_*` columns are noisy functions of the
finished logit (`draw_history`): given all other columns they are independent of the click, so the
best attainable score is the same with and without them.

The true probability has an AUC of 0.83, the tabular parts alone have 0.69. Shares of the logit's
variance (`part_shares`): recent 0.54, numeric 0.13, inventory 0.12, recent_x_slot 0.12,
inventory_x_age 0.03, long_range 0.02, order 0.02, user 0.01, hour 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.data.synthetic.sequences import LAST_ID

Array = NDArray[Any]

BIAS = -6.14
RECENCY = 20.0  # events

CLICK_RATE = {  # by inventory_id; only the ratios count
    2: 1.0, 36: 1.9, 37: 1.5, 41: 4.1, 29: 2.4, 43: 2.9, 18: 1.3, 88: 2.0, 46: 3.4,
    21: 1.1, 91: 2.6, 17: 1.6, 42: 3.0, 95: 2.2, 31: 1.2, 13: 1.8, 92: 2.0, 39: 2.0,
}  # fmt: skip
GROUP = {  # which way an event's slot interest points
    2: -1, 36: 1, 37: -1, 41: 1, 29: -1, 43: 1, 18: 1, 88: -1, 46: 1,
    21: 1, 91: -1, 17: 1, 42: -1, 95: 1, 31: -1, 13: 1, 92: -1, 39: 1,
}  # fmt: skip
AGE = (0.0, 0.3, 0.25, 0.1, 0.0, -0.1, 0.0, 0.1, 0.2)  # by age_group, 0 missing
GENDER = (0.0, -0.06, 0.1)  # by gender, 0 missing

INTEREST = {
    57: 0.9, 516: 0.9, 74: -0.9, 77: -0.9, 9: 0.5, 269: 0.5, 318: -0.7, 527: -0.7,
    101: 1.0, 479: 1.0, 1: -1.0, 212: -1.0, 423: 1.2, 50: 1.2, 261: -1.2, 472: -1.2,
}  # fmt: skip
SLOT_INTEREST = {
    57: 0.6, 516: 0.6, 9: -1.0, 269: -1.0, 318: 0.9, 527: 0.9, 99: -1.0, 310: -1.0,
}  # fmt: skip
ORDERED = ((57, 516), (318, 527), (77, 74))  # first, then at once second
LONG_RANGE = (521, 148, 359, 570, 197, 408, 35, 246)
LONG_RANGE_SHARE = 0.08  # mean over rows

STRENGTH = {"recent": 5.6, "recent_x_slot": 3.0, "order": 5.0, "long_range": 5.0}
SEQUENCE_PARTS = tuple(STRENGTH)


def logit_parts(
    people: Mapping[str, Array],
    hour: Array,
    numeric: Mapping[str, Array],
    values: Array,
    offsets: Array,
) -> dict[str, Array]:
    """The nine parts of the logit by name, (rows,) float64 each.

    Args:
        people: gender (1, 2), age_group (1..8), 0 where missing, and inventory_id.
        hour: (rows,) 0..23.
        numeric: the numeric features by name, NaN where missing.
        values, offsets: the sequences, oldest event first.
    """
    inventory, age = people["inventory_id"], people["age_group"]
    group = _by_id(GROUP)[inventory]
    sequence = dict(zip(SEQUENCE_PARTS, sequence_signals(values, offsets).T, strict=True))
    sequence["recent_x_slot"] = sequence["recent_x_slot"] * group
    return {
        "inventory": np.log(_by_id(CLICK_RATE, 1.0)[inventory]),
        "user": np.array(AGE)[age] + np.array(GENDER)[people["gender"]],
        "hour": 0.15 * np.cos(2 * np.pi * (hour - 21) / 24),
        "numeric": numeric_part(numeric),
        "inventory_x_age": 0.20 * group * np.select([age >= 6, age >= 1], [1.0, -1.0], 0.0),
        **{name: STRENGTH[name] * signal for name, signal in sequence.items()},
    }


def numeric_part(x: Mapping[str, Array]) -> Array:
    """(rows,) effect of six numeric features; a missing one adds 0."""
    effects = [
        0.30 * (x["l_feat_3"] - 2.34),
        0.75 * (x["l_feat_13"] - 1.63),
        np.where(x["l_feat_27"] == 1, -0.08, 0.12),
        0.15 * (np.log1p(x["feat_d_4"]) - 1.6),
        0.005 * (x["feat_e_1"] - 56),
        0.0004 * (196 - (x["feat_c_5"] - 30) ** 2),  # best in the middle
    ]
    return np.asarray(np.nansum(effects, axis=0))


def true_probability(parts: Mapping[str, Array]) -> Array:
    """(rows,) float64: sigmoid of the bias and all parts."""
    return np.asarray(expit(BIAS + np.sum(list(parts.values()), axis=0)))


def part_shares(parts: Mapping[str, Array]) -> dict[str, float]:
    """The share of each part in the logit's variance; they sum to 1."""
    logit = np.sum(list(parts.values()), axis=0)
    return {
        name: float(np.cov(part, logit)[0, 1] / logit.var(ddof=1)) for name, part in parts.items()
    }


def sequence_signals(values: Array, offsets: Array) -> Array:
    """(rows, 4) float64, the sums of the four sequence parts before strength and slot group."""
    longest = int(np.diff(offsets).max(initial=0))
    recency = np.exp(-np.arange(longest) / RECENCY) / RECENCY
    follows = np.zeros(LAST_ID + 1, np.uint16)  # the event that must stand before; 0 for none
    for first, second in ORDERED:
        follows[second] = first
    is_long_range = np.zeros(LAST_ID + 1)
    is_long_range[list(LONG_RANGE)] = 1.0
    out = np.zeros((len(offsets) - 1, len(SEQUENCE_PARTS)))
    _fill_signals(
        values,
        offsets,
        recency,
        _by_id(INTEREST),
        _by_id(SLOT_INTEREST),
        follows,
        is_long_range,
        out,
    )
    return out


@numba.njit(cache=True, nogil=True)
def _fill_signals(
    values: Array,
    offsets: Array,
    recency: Array,
    interest: Array,
    slot_interest: Array,
    follows: Array,
    is_long_range: Array,
    out: Array,
) -> None:
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        long_range = 0.0
        for at in range(begin, end):
            event, weight = values[at], recency[end - 1 - at]
            out[row, 0] += weight * interest[event]
            out[row, 1] += weight * slot_interest[event]
            if at > begin and follows[event] != 0 and values[at - 1] == follows[event]:
                out[row, 2] += weight
            long_range += is_long_range[event]
        shrunk = (long_range + 50 * LONG_RANGE_SHARE) / (end - begin + 50)
        out[row, 3] = shrunk - LONG_RANGE_SHARE


def _by_id(table: Mapping[int, float], default: float = 0.0) -> Array:
    """A dictionary of small ids as a lookup array."""
    out = np.full(LAST_ID + 1, default)
    out[list(table)] = list(table.values())
    return out
