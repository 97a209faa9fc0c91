"""Which training row is held out with which fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.config.choices import FoldMethod
from tossctr.errors import UserError
from tossctr.metrics.grouped import NO_GROUP


def split(
    method: FoldMethod,
    folds: int,
    label: NDArray[Any],
    *,
    group: NDArray[Any] | None = None,
    seed: int,
) -> NDArray[np.int16]:
    """(N,) fold of each row, from 0.

    Args:
        method: `stratified`: at random, the same share of clicks in each; `random`; `time`:
            consecutive blocks of the file, each held out from all the others; `group`: at random,
            the rows of a group together, folds of like size; a row without one by itself.
        folds: how many.
        label: (N,) 0 or 1.
        group: (N,) which `group` needs.
        seed: of chance.

    Raises:
        UserError: a fold that would hold one class only.
    """
    rows = len(label)
    positive = np.asarray(label) > 0.5
    rng = np.random.default_rng([seed, folds])
    fold = np.empty(rows, np.int16)
    if method == "time":
        fold[:] = np.arange(rows) * folds // rows
    elif method == "group":
        if group is None:
            raise UserError("folds by group need groups", key="group_id", remedy="name a feature")
        fold[:] = _by_group(np.asarray(group), folds, rng)
    else:
        parts = [positive, ~positive] if method == "stratified" else [np.ones(rows, bool)]
        for part in parts:
            fold[part] = rng.permutation(int(part.sum())) % folds
    for k in range(folds):
        clicks, held = int(positive[fold == k].sum()), int((fold == k).sum())
        if not 0 < clicks < held:
            raise UserError(
                f"fold {k} of {folds} would hold {held:,} rows with {clicks:,} clicks",
                key="--folds",
                value=folds,
                remedy="take fewer folds, or --fold-method stratified",
            )
    return fold


def _by_group(group: NDArray[Any], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Largest group first, each into the fold with fewest rows so far; equal ones in any order."""
    found, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(group == NO_GROUP)  # each such row is a group by itself
    if len(alone):
        sizes[found == NO_GROUP] = 0
        number[alone] = len(sizes) + np.arange(len(alone))
        sizes = np.concatenate([sizes, np.ones(len(alone), sizes.dtype)])
    order = np.lexsort((rng.permutation(len(sizes)), -sizes))
    filled = np.zeros(folds, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for g in order:
        k = int(filled.argmin())
        fold_of[g] = k
        filled[k] += sizes[g]
    return fold_of[number]
