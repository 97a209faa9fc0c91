"""The fold in which each training row is held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.calibration.cross_validation import stratified_folds
from tossctr.config.choices import FoldMethod
from tossctr.errors import UserError
from tossctr.metrics.grouped import NO_GROUP


def assign_folds(
    method: FoldMethod,
    folds: int,
    label: NDArray[Any],
    *,
    group: NDArray[Any] | None = None,
    seed: int,
) -> NDArray[np.int16]:
    """(N,) fold of each row, from 0.

    Args:
        method: `stratified`: at random, with the same share of clicks in each fold; `random`;
            `time`: consecutive blocks of rows; `group`: at random, with the rows of a group in one
            fold and folds of similar size; rows without a group are assigned one by one.
        folds: number of folds.
        label: (N,) 0 or 1.
        group: (N,) the group of each row, for `group`.
        seed: of the random methods.

    Raises:
        UserError: a fold with one class only.
    """
    rows = len(label)
    positive = np.asarray(label) > 0.5
    rng = np.random.default_rng([seed, folds])
    fold = np.empty(rows, np.int16)
    if method == "time":
        fold[:] = np.arange(rows) * folds // rows
    elif method == "group":
        if group is None:
            raise UserError("is needed for folds by group", key="group_id", remedy="name a feature")
        fold[:] = _by_group(np.asarray(group), folds, rng)
    elif method == "stratified":
        fold[:] = stratified_folds(positive, folds, rng)
    else:
        fold[:] = rng.permutation(rows) % folds
    for k in range(folds):
        clicks, held = int(positive[fold == k].sum()), int((fold == k).sum())
        if not 0 < clicks < held:
            raise UserError(
                f"fold {k} of {folds} would hold {held:,} rows with {clicks:,} clicks",
                key="--folds",
                value=folds,
                remedy="use fewer folds, or --fold-method stratified",
            )
    return fold


def _by_group(group: NDArray[Any], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Largest group first, each into the fold with the fewest rows so far; ties at random."""
    found, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    ungrouped = np.flatnonzero(group == NO_GROUP)  # each a group of one row
    if len(ungrouped):
        sizes[found == NO_GROUP] = 0
        number[ungrouped] = len(sizes) + np.arange(len(ungrouped))
        sizes = np.concatenate([sizes, np.ones(len(ungrouped), sizes.dtype)])
    order = np.lexsort((rng.permutation(len(sizes)), -sizes))
    filled = np.zeros(folds, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for g in order:
        k = int(filled.argmin())
        fold_of[g] = k
        filled[k] += sizes[g]
    return fold_of[number]
