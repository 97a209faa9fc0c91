"""Compiled loops over the events of many rows; each visits an event once.

Common arguments: `values` (M,) ids, row b being values[starts[b]:ends[b]], oldest first;
`decay` (H,) factors by which an event's weight falls per newer event, the first 1 (plain counts).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def add_moments(values, starts, ends, label, decay, sums):  # type: ignore[no-untyped-def]
    """Add rows to sums (V, H, 3): sum of x, x^2 and x y, x being an id's weighted count in a row
    and y the row's label."""
    ids, kinds = sums.shape[0], sums.shape[1]
    count = np.zeros((ids, kinds))
    touched = np.empty(ids, np.int64)
    weight = np.empty(kinds)
    for row in range(len(starts)):
        found = 0
        weight[:] = 1.0
        for i in range(ends[row] - 1, starts[row] - 1, -1):
            event = values[i]
            if count[event, 0] == 0.0:
                touched[found] = event
                found += 1
            for h in range(kinds):
                count[event, h] += weight[h]
                weight[h] *= decay[h]
        y = label[row]
        for k in range(found):
            event = touched[k]
            for h in range(kinds):
                x = count[event, h]
                sums[event, h, 0] += x
                sums[event, h, 1] += x * x
                sums[event, h, 2] += x * y
                count[event, h] = 0.0


@njit(nogil=True, cache=True)
def count_events(values, starts, ends, decay, column, out):  # type: ignore[no-untyped-def]
    """out (B, 2 + n H), initially zero: length, distinct ids, then H weighted counts of each of
    the n ids e with column[e] >= 0."""
    kinds = len(decay)
    seen = np.full(len(column), -1, np.int64)
    weight = np.empty(kinds)
    for row in range(len(starts)):
        weight[:] = 1.0
        for i in range(ends[row] - 1, starts[row] - 1, -1):
            event = values[i]
            if seen[event] != row:
                seen[event] = row
                out[row, 1] += 1
            first = 2 + column[event] * kinds
            for h in range(kinds):
                if first >= 2:
                    out[row, first + h] += weight[h]
                weight[h] *= decay[h]
        out[row, 0] = ends[row] - starts[row]


@njit(nogil=True, cache=True)
def add_keys(keys, label, fold, sums):  # type: ignore[no-untyped-def]
    """Add rows to sums (K, keys, 2): rows and clicks by fold and key."""
    for row in range(len(keys)):
        sums[fold[row], keys[row], 0] += 1.0
        sums[fold[row], keys[row], 1] += label[row]


@njit(nogil=True, cache=True)
def add_clicks(values, starts, ends, slot, slots, label, fold, sums):  # type: ignore[no-untyped-def]
    """Add rows to sums (K, V x slots, 2): events, and events of clicked rows, by the row's fold,
    the event's id and the row's slot."""
    for row in range(len(starts)):
        k, y, s = fold[row], label[row], slot[row]
        for i in range(starts[row], ends[row]):
            key = np.int64(values[i]) * slots + s
            sums[k, key, 0] += 1.0
            sums[k, key, 1] += y


@njit(nogil=True, cache=True)
def mean_of_events(values, starts, ends, slot, slots, fold, table, decay, out):  # type: ignore[no-untyped-def]
    """out (B, H): weighted means of table[fold, id x slots + slot] over a row's events; 0 for a row
    without events."""
    kinds = len(decay)
    weight = np.empty(kinds)
    total = np.empty(kinds)
    for row in range(len(starts)):
        k, s = fold[row], slot[row]
        weight[:] = 1.0
        total[:] = 0.0
        out[row, :] = 0.0
        for i in range(ends[row] - 1, starts[row] - 1, -1):
            x = table[k, np.int64(values[i]) * slots + s]
            for h in range(kinds):
                out[row, h] += weight[h] * x
                total[h] += weight[h]
                weight[h] *= decay[h]
        if ends[row] > starts[row]:
            for h in range(kinds):
                out[row, h] /= total[h]
