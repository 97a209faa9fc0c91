"""Synthetic tabular columns: user, slot, time, and the numeric features.

Columns are independent except where the real ones are related: the ad's ids (`l_feat_5` and others
with many values) depend on a latent ad, `l_feat_16` and `l_feat_17` duplicate others, and values
are missing for a user as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tossctr.data.schema import NUMERIC

Array = NDArray[Any]
Columns = dict[str, Array]

USER_MISSING = 0.0024  # share of rows with all features of the user missing
E3_MISSING = 0.082

GENDER = (0.62, 0.38)  # '1.0', '2.0'
AGE_GROUP = (0.03, 0.03, 0.06, 0.05, 0.22, 0.35, 0.255, 0.005)  # '1.0'..'8.0'
# Impressions by hour of day, relative.
DAY_CURVE = (
    *(76, 33, 15, 14, 19, 37, 69, 93, 96, 88, 86, 79),
    *(84, 66, 62, 66, 68, 72, 66, 72, 68, 67, 74, 51),
)
DAYS = {"train": 7, "test": 1}  # covered by a file of any size; test follows train

# inventory_id: share of the rows.
INVENTORY = {
    2: 0.25,
    36: 0.15,
    37: 0.14,
    41: 0.09,
    29: 0.08,
    43: 0.07,
    18: 0.06,
    88: 0.05,
    46: 0.04,
    21: 0.03,
    91: 0.02,
    17: 0.01,
    42: 0.005,
    95: 0.0025,
    31: 0.0015,
    13: 0.0007,
    92: 0.00025,
    39: 0.00005,
}


class Draw(Protocol):
    """The distribution of a numeric column."""

    def draw(self, rng: np.random.Generator, rows: int) -> Array: ...


@dataclass(frozen=True)
class Levels:
    """Integers `first`, `first + 1`, ... with these probabilities."""

    shares: tuple[float, ...]
    first: int = 1

    def draw(self, rng: np.random.Generator, rows: int) -> Array:
        ends = np.cumsum(self.shares)
        return np.searchsorted(ends[:-1], rng.random(rows), side="right") + float(self.first)


@dataclass(frozen=True)
class Capped:
    """From 0 to a cap, with probability `at_cap` of the cap itself."""

    cap: float
    at_cap: float
    power: float = 0.5  # below 1: skewed to the cap, above 1: to zero

    def draw(self, rng: np.random.Generator, rows: int) -> Array:
        below = np.minimum(rng.random(rows) / (1 - self.at_cap), 1)
        return self.cap * np.round(below**self.power, 3)


@dataclass(frozen=True)
class Tail:
    """Log-normal with a share of exact zeros; a negative median mirrors it."""

    median: float
    sigma: float
    zeros: float = 0.0

    def draw(self, rng: np.random.Generator, rows: int) -> Array:
        value = self.median * np.exp(self.sigma * rng.standard_normal(rows))
        return np.where(rng.random(rows) < self.zeros, 0.0, value)


@dataclass(frozen=True)
class Pareto:
    """A tail so long that min-max scaling compresses the rest, cut at `maximum`."""

    scale: float
    alpha: float
    maximum: float

    def draw(self, rng: np.random.Generator, rows: int) -> Array:
        return np.minimum(self.scale * (1 - rng.random(rows)) ** (-1 / self.alpha), self.maximum)


@dataclass(frozen=True)
class Sparse:
    """Mostly zero, else one of a few levels up to `top`, with decreasing probability."""

    zeros: float
    top: float
    levels: int = 5

    def draw(self, rng: np.random.Generator, rows: int) -> Array:
        level = np.ceil(rng.random(rows) ** 3 * self.levels) * (self.top / self.levels)
        return np.where(rng.random(rows) < self.zeros, 0.0, level)


DRAWS: Mapping[str, Draw] = {
    "l_feat_1": Levels((0.16, 0.84)),
    "l_feat_2": Levels((0.16, 0.84)),
    "l_feat_3": Levels((0.19, 0.28, 0.53)),
    "l_feat_4": Levels((0.1, *[0.022] * 5, 0.45, *[0.018] * 18, 0.016)),
    "l_feat_8": Levels((0.007, 0.993)),
    "l_feat_13": Levels((0.37, 0.63)),
    "l_feat_18": Levels((0.03, 0.3, 0.4, 0.1, 0.07, 0.04, 0.06), first=0),
    "l_feat_19": Levels((0.16, 0.84)),
    "l_feat_20": Levels((1.0,), first=2),
    "l_feat_21": Levels((0.04, 0.96)),
    "l_feat_22": Levels((0.02, 0.98)),
    "l_feat_23": Levels((1.0,)),
    "l_feat_24": Levels((0.9995, 0.0005)),
    "l_feat_25": Levels((*[0.00025] * 48, 0.976, *[0.00025] * 48), first=1081),
    "l_feat_26": Levels((0.25, *[0.03] * 9, 0.1, *[0.02] * 3, 0.22, *[0.034] * 2, 0.032)),
    "l_feat_27": Levels((0.6, 0.17, 0.1, 0.08, 0.05)),
    "feat_e_1": Capped(65.0, 0.61),
    "feat_e_2": Tail(-2265.0, 1.1),
    "feat_e_3": Tail(4.5, 0.9),
    "feat_e_4": Sparse(0.013, -0.05, 1),
    "feat_e_5": Tail(-0.06, 1.0, zeros=0.49),
    "feat_e_6": Tail(-0.05, 0.9, zeros=0.24),
    "feat_e_7": Tail(21.0, 1.5, zeros=0.015),
    "feat_e_8": Capped(-575.0, 0.001, 1.6),
    "feat_e_9": Tail(-10.0, 1.4),
    "feat_e_10": Capped(-1054.0, 0.001, 1.6),
    "feat_d_1": Capped(0.3896, 0.72),
    "feat_d_2": Capped(2.0, 0.44, 0.3),
    "feat_d_3": Capped(1.7647, 0.58, 0.3),
    "feat_d_4": Tail(6.0, 0.95, zeros=0.19),
    "feat_d_5": Capped(-0.303, 0.52, 0.9),
    "feat_d_6": Capped(-0.4225, 0.46, 0.9),
    "feat_c_1": Capped(58.84, 0.54),
    "feat_c_2": Capped(36.0, 0.15, 3.0),
    "feat_c_3": Capped(82.28, 0.2, 0.7),
    "feat_c_4": Capped(28.91, 0.2, 0.2),
    "feat_c_5": Capped(47.0, 0.1, 0.6),
    "feat_c_6": Capped(7.97, 0.13, 0.3),
    "feat_c_7": Capped(73.89, 0.86),
    "feat_c_8": Capped(31.66, 0.1, 0.5),
    "feat_b_1": Pareto(0.9, 1.69, 1241.0),
    "feat_b_2": Tail(-3.4, 0.7, zeros=0.07),
    "feat_b_3": Tail(17.0, 0.9, zeros=0.03),
    "feat_b_4": Capped(0.9278, 0.3, 0.2),
    "feat_b_5": Capped(-161.7, 0.001, 1.5),
    "feat_b_6": Tail(1180.0, 0.9, zeros=0.04),
    "feat_a_1": Sparse(0.866, 14.4, 4),
    "feat_a_2": Sparse(0.999, 4.8, 1),
    "feat_a_3": Sparse(0.858, 30.6, 4),
    "feat_a_4": Sparse(0.919, 88.2),
    "feat_a_5": Sparse(0.613, 86.73, 71),
    "feat_a_6": Sparse(0.583, 17.1, 8),
    "feat_a_7": Sparse(0.767, 36.9, 7),
    "feat_a_8": Sparse(0.967, 63.0, 6),
    "feat_a_9": Sparse(0.938, 90.0, 7),
    "feat_a_10": Sparse(0.945, 76.5, 3),
    "feat_a_11": Sparse(0.959, 37.8, 7),
    "feat_a_12": Sparse(0.945, 14.0, 10),
    "feat_a_13": Sparse(0.939, 47.7, 3),
    "feat_a_14": Sparse(0.580, 7.0, 1000),
    "feat_a_15": Sparse(0.895, 62.1, 8),
    "feat_a_16": Sparse(0.954, 18.9, 6),
    "feat_a_17": Sparse(0.801, 3.6, 8),
    "feat_a_18": Sparse(0.914, 47.7),
}
# Numbers of values of the ids that depend on the ad.
AD_IDS = {
    "l_feat_5": 1026,
    "l_feat_6": 870,
    "l_feat_7": 301,
    "l_feat_9": 461,
    "l_feat_10": 254,
    "l_feat_11": 1445,
    "l_feat_12": 4856,
    "l_feat_14": 3191,
    "l_feat_15": 2533,
}
N_ADS = 5000
_USER_FLAGS = (2, 8, 18, 19, 20, 21, 22, 23, 24)
USER_COLUMNS = (
    *(f"l_feat_{i}" for i in _USER_FLAGS),
    *(name for name in NUMERIC if name.startswith("feat_")),
)


def draw_people(rng: np.random.Generator, rows: int) -> Columns:
    """gender (1, 2), age_group (1..8), both 0 if missing, and inventory_id: (rows,) int64."""
    known = rng.random(rows) >= USER_MISSING
    return {
        "gender": np.where(known, Levels(GENDER).draw(rng, rows), 0).astype(np.int64),
        "age_group": np.where(known, Levels(AGE_GROUP).draw(rng, rows), 0).astype(np.int64),
        "inventory_id": np.array(list(INVENTORY))[
            Levels(tuple(INVENTORY.values()), first=0).draw(rng, rows).astype(np.int64)
        ],
    }


def clock(split: str, first_row: int, rows: int, total_rows: int) -> Columns:
    """day_of_week (1..7) and hour (0..23) of rows in time order: (rows,) int64."""
    days = (first_row + np.arange(rows)) / total_rows * DAYS[split]
    day = days.astype(np.int64)
    ends = np.cumsum(DAY_CURVE) / np.sum(DAY_CURVE)
    hour = np.searchsorted(ends[:-1], days - day, side="right")
    return {"day_of_week": 1 + day % 7, "hour": hour.astype(np.int64)}


def draw_numeric(rng: np.random.Generator, user_known: Array) -> Columns:
    """The 75 numeric features, NaN if missing: (rows,) float64 by name."""
    rows = len(user_known)
    # A few ads take most impressions; each ad's ids are spread over the column's range by strides.
    ad = np.floor(N_ADS * rng.random(rows) ** 2.5).astype(np.int64)
    columns = {name: 1.0 + ad * 2_654_435_761 % size for name, size in AD_IDS.items()}
    columns |= {name: spec.draw(rng, rows) for name, spec in DRAWS.items()}
    columns["l_feat_16"] = 3 - columns["l_feat_1"]
    columns["l_feat_17"] = columns["l_feat_9"]
    for name in USER_COLUMNS:
        columns[name] = np.where(user_known, columns[name], np.nan)
    e3_known = rng.random(rows) >= E3_MISSING - USER_MISSING
    columns["feat_e_3"] = np.where(e3_known, columns["feat_e_3"], np.nan)
    return {name: columns[name] for name in NUMERIC}
