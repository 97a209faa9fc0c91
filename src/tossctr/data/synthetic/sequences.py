"""Synthetic behaviour sequences: lengths, events, and their comma-joined text.

A row's events follow a small Markov process with memory. The first event is 9 in 46 % of rows and
57 in 24 %. Each further one is at random

- the previous event (`REPEAT`),
- the partner of the previous event (`PARTNER`): ids form pairs of equal frequency, so that "A then
B"
  and "B then A" are equally frequent and counts do not reveal the order,
- any earlier event of the same row (`HABIT`), so that users differ,
- or an independent draw from the table of frequencies.

Each step preserves the table's frequencies.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[Any]

REPEAT, PARTNER, HABIT = 0.01, 0.25, 0.45
FIRST_EVENTS = ((9, 0.44), (57, 0.22))  # a fresh draw adds the missing 2 %

# Events per row: quantiles of the real file, interpolated linearly. The maximum occurs in files of
# a few hundred thousand rows or more.
LENGTH_QUANTILES = (
    (0.0, 1),
    (0.05, 33),
    (0.15, 110),
    (0.25, 197),
    (0.375, 325),
    (0.5, 465),
    (0.625, 627),
    (0.75, 816),
    (0.85, 1008),
    (0.9, 1160),
    (0.95, 1397),
    (0.99, 1800),
    (0.999, 2600),
    (0.9999, 4500),
    (1.0, 6591),
)

# The ten most frequent ids as pairs with the frequency of each member: half of all tokens.
COMMON_PAIRS = (
    ((57, 516), 0.075),
    ((74, 77), 0.060),
    ((9, 269), 0.050),
    ((318, 527), 0.037),
    ((101, 479), 0.028),
)
N_IDS, LAST_ID = 530, 584


def _frequencies() -> tuple[Array, Array]:
    """(N_IDS,) ids by rank, and their frequencies; ranks 2k and 2k+1 are partners."""
    common = [i for pair, _ in COMMON_PAIRS for i in pair]
    strided = (1 + k * 211 % LAST_ID for k in range(LAST_ID))  # 211 is prime to 584: each id once
    ids = common + [i for i in strided if i not in common]
    middle, tail = 0.93 ** np.arange(45), 0.992 ** np.arange(215)
    by_pair = np.concatenate(
        [
            [frequency for _, frequency in COMMON_PAIRS],
            0.48 / 2 * middle / middle.sum(),  # ranks 10..99
            0.02 / 2 * tail / tail.sum(),
        ]
    )
    return np.array(ids[:N_IDS], np.uint16), np.repeat(by_pair, 2)


IDS, FREQUENCIES = _frequencies()


def _fresh_table() -> Array:
    """(65536,) the id of each 16-bit random number."""
    ends = np.cumsum(FREQUENCIES) / FREQUENCIES.sum()
    ranks = np.searchsorted(ends, (np.arange(65_536) + 0.5) / 65_536)
    return np.asarray(IDS[ranks], np.uint16)


def _partner_table() -> Array:
    """(LAST_ID + 1,) the other id of each id's pair."""
    table = np.arange(LAST_ID + 1, dtype=np.uint16)
    table[IDS[0::2]], table[IDS[1::2]] = IDS[1::2], IDS[0::2]
    return table


FRESH, PARTNERS = _fresh_table(), _partner_table()


def draw_lengths(rng: np.random.Generator, rows: int) -> Array:
    """(rows,) int64 events per row."""
    at, length = zip(*LENGTH_QUANTILES, strict=True)
    return np.asarray(np.interp(rng.random(rows), at, length), np.int64)


def draw_events(rng: np.random.Generator, lengths: Array) -> tuple[Array, Array]:
    """Events of rows of those lengths, oldest first.

    Returns:
        values (M,) uint16 and offsets (rows + 1,) int64.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty(offsets[-1], np.uint16)
    seed = rng.integers(0, 2**64, dtype=np.uint64)
    starts = np.array([p for _, p in FIRST_EVENTS]).cumsum()
    first = np.array([i for i, _ in FIRST_EVENTS], np.uint16)
    chances = np.cumsum([REPEAT, PARTNER, HABIT])
    _fill_events(seed, offsets, starts, first, chances, FRESH, PARTNERS, values)
    return values, offsets


def joined(values: Array, offsets: Array) -> pa.StringArray:
    """Rows as comma-joined decimal text, written directly to Arrow's buffers."""
    ends = np.zeros(len(offsets), np.int32)
    _text_ends(values, offsets, ends)
    text = np.empty(ends[-1], np.uint8)
    _fill_text(values, offsets, ends, text)
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(ends), pa.py_buffer(text))


# The kernels below are compiled; with `nogil`, several threads generate blocks at once.


@numba.njit(cache=True, inline="always")
def _mix(state: Any) -> Any:
    """SplitMix64's output function: 64 random bits of a counter."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _fill_events(
    seed: Any,
    offsets: Array,
    starts: Array,
    first: Array,
    chances: Array,
    fresh: Array,
    partners: Array,
    out: Array,
) -> None:
    step = np.uint64(0x9E3779B97F4A7C15)
    repeat = np.uint64(chances[0] * 4294967296.0)
    partner = np.uint64(chances[1] * 4294967296.0)
    habit = np.uint64(chances[2] * 4294967296.0)
    low, sixteen = np.uint64(0xFFFFFFFF), np.uint64(16)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        state = _mix(seed + np.uint64(row) * step)
        last = np.uint16(0)
        for at in range(begin, end):
            state += step
            bits = _mix(state)
            choice, value = bits >> np.uint64(32), bits & low
            if at == begin:
                share = choice / 4294967296.0
                last = fresh[value >> sixteen]
                for i in range(len(first) - 1, -1, -1):
                    if share < starts[i]:
                        last = first[i]
            elif choice < repeat:
                pass
            elif choice < partner:
                last = partners[last]
            elif choice < habit:
                last = out[begin + np.int64((value * np.uint64(at - begin)) >> np.uint64(32))]
            else:
                last = fresh[value >> sixteen]
            out[at] = last


@numba.njit(cache=True, nogil=True)
def _text_ends(values: Array, offsets: Array, ends: Array) -> None:
    size = 0
    for row in range(len(offsets) - 1):
        size += max(offsets[row + 1] - offsets[row] - 1, 0)  # commas
        for at in range(offsets[row], offsets[row + 1]):
            size += 1 + (values[at] > 9) + (values[at] > 99)
        ends[row + 1] = size


@numba.njit(cache=True, nogil=True)
def _fill_text(values: Array, offsets: Array, ends: Array, text: Array) -> None:
    for row in range(len(offsets) - 1):
        at = ends[row]
        for event in range(offsets[row], offsets[row + 1]):
            if event > offsets[row]:
                text[at] = 44  # ,
                at += 1
            value = np.uint32(values[event])
            if value > 99:
                text[at] = 48 + value // 100
                at += 1
            if value > 9:
                text[at] = 48 + value // 10 % 10
                at += 1
            text[at] = 48 + value % 10
            at += 1
