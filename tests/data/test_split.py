from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.config.schema import ValidSplit
from tossctr.data.preparing.random_split import RandomSplit


def mask(split: ValidSplit, labels: np.ndarray, cuts: list[int]) -> np.ndarray:
    reader = RandomSplit(split)
    return np.concatenate([reader.next(part) for part in np.split(labels, sorted(cuts))])


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["random", "stratified"]),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
    cuts=st.lists(st.integers(0, 500), max_size=5),
)
def test_a_split_does_not_depend_on_batch_boundaries(
    method: str, fraction: float, seed: int, cuts: list[int]
) -> None:
    split = ValidSplit(method=method, fraction=fraction, seed=seed)  # type: ignore[arg-type]
    labels = np.random.default_rng(seed).integers(0, 2, 500)
    np.testing.assert_array_equal(mask(split, labels, cuts), mask(split, labels, []))


@settings(max_examples=100, deadline=None)
@given(
    fraction=st.floats(0.001, 0.999),
    rows=st.integers(1, 3000),
    rate=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_the_stratified_share_is_exact(fraction: float, rows: int, rate: float, seed: int) -> None:
    labels = (np.random.default_rng(seed).random(rows) < rate).astype(int)
    split = ValidSplit(method="stratified", fraction=fraction, seed=seed)
    chosen = mask(split, labels, [])
    for label in (0, 1):
        of_label = chosen[labels == label]
        assert abs(of_label.sum() - fraction * len(of_label)) < 1 + 1e-6


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_the_share_the_seed_and_the_spread(method: str) -> None:
    labels = np.zeros(100_000, int)
    first, second = (
        mask(ValidSplit(method=method, fraction=0.2, seed=s), labels, [])  # type: ignore[arg-type]
        for s in (1, 2)
    )
    assert abs(first.mean() - 0.2) < 0.005
    # Independent draws agree on a fifth of the chosen rows.
    assert abs((first & second).mean() - 0.04) < 0.003
    # No period: a chosen row says nothing of a row ten later.
    assert abs((first[:-10] & first[10:]).mean() - 0.04) < 0.003
