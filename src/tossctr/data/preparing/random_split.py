"""Random assignment of rows to the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.config.schema import ValidSplit

Array = NDArray[Any]

_ONE = 1 << 32


class RandomSplit:
    """Chooses validation rows while a file is read in order, independently of the batches.

    `random`: each row independently with probability `fraction`. `stratified`: one row at random of
    every 1 / `fraction` consecutive rows of the same label, so that the share of each label is
    exact to within one row in any range of the file.

    Args:
        split: method `random` or `stratified`, fraction and seed.
        row: number of the first row.
        seen: numbers of rows of label 0 and 1 before it, for `stratified`.
    """

    def __init__(self, split: ValidSplit, row: int = 0, seen: Sequence[int] = (0, 0)) -> None:
        self._stratified = split.method == "stratified"
        self._seed = split.seed
        # In units of 2^-32, so that windows of rows are exact in integers.
        self._share = max(1, round(split.fraction * _ONE))
        self._seen = list(seen)
        self._row = row

    def next(self, labels: Array) -> Array:
        """(B,) bool: which of the next B rows are for validation, given their labels (0 or 1)."""
        if not self._stratified:
            rows = np.arange(self._row, self._row + len(labels), dtype=np.uint64)
            self._row += len(labels)
            mask: Array = _uniform(self._seed, 0, rows) < self._share
            return mask
        chosen = np.zeros(len(labels), bool)
        for label in (0, 1):
            of_label = np.flatnonzero(labels == label)
            ordinal = np.arange(len(of_label), dtype=np.uint64) + np.uint64(self._seen[label])
            self._seen[label] += len(of_label)
            chosen[of_label] = self._one_a_window(label, ordinal)
        return chosen

    def _one_a_window(self, label: int, ordinal: Array) -> Array:
        share, one = np.uint64(self._share), np.uint64(_ONE)
        window = ordinal * share // one
        first = (window * one + share - np.uint64(1)) // share
        following = ((window + np.uint64(1)) * one + share - np.uint64(1)) // share
        pick = first + _uniform(self._seed, 1 + label, window) * (following - first) // one
        chosen: Array = pick == ordinal
        return chosen


def _uniform(seed: int, stream: int, counter: Array) -> Array:
    """Random integers below 2^32, one for each counter (SplitMix64; Steele et al., 2014)."""
    start = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        z = start + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits: Array = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
    return bits
