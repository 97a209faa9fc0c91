"""A subset of a store reads like a store of its rows."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tossctr.data.loader import RowsDataset
from tossctr.data.prepare import prepare
from tossctr.data.rows import RaggedArray
from tossctr.data.subset import subset
from tossctr.families.experiment import load_experiment
from tossctr.trees.features import TreeFeatures

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def rows(experiment):
    return prepare(experiment("FESeq_toy").dataset).train


CHOSEN = np.random.default_rng(0).permutation(120)[:70]


def test_batches_are_those_of_the_chosen_rows(rows):
    part = subset(rows, CHOSEN)
    numbers = np.array([5, 0, 69, 33])
    ours, theirs = part.take(numbers), rows.take(CHOSEN[numbers])
    for spec in fields(ours):
        mine, other = getattr(ours, spec.name), getattr(theirs, spec.name)
        if spec.name == "row":
            assert mine.tolist() == numbers.tolist()
        elif isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other), spec.name
        elif isinstance(mine, dict):
            for name in mine:
                assert torch.equal(mine[name].values, other[name].values), name
                assert torch.equal(mine[name].offsets, other[name].offsets), name
    assert len(part) == 70


def test_a_loader_sorts_a_subset_by_length(rows):
    batch = RowsDataset(subset(rows, CHOSEN))[np.arange(70)]
    lengths = batch.sequences["seq"].lengths
    assert (lengths.diff() >= 0).all()
    np.testing.assert_array_equal(
        lengths, rows.sequences["seq"].lengths[CHOSEN[batch.row.numpy()]].clip(max=64)
    )


def test_arrays_are_read_in_slices_as_trees_read_them(rows):
    part = subset(rows, CHOSEN)
    ragged, whole = part.sequences["seq"], rows.sequences["seq"]
    first, last = int(ragged.offsets[10]), int(ragged.offsets[13])
    expected = [whole.values[whole.offsets[r] : whole.offsets[r + 1]] for r in CHOSEN[10:13]]
    np.testing.assert_array_equal(ragged.values[first:last], np.concatenate(expected))
    np.testing.assert_array_equal(ragged.lengths, whole.lengths[CHOSEN])
    np.testing.assert_array_equal(part.numeric[10:13], rows.numeric[CHOSEN[10:13]])
    np.testing.assert_array_equal(part.numeric[:, 2], rows.numeric[CHOSEN, 2])
    np.testing.assert_array_equal(part.label, rows.label[CHOSEN])
    assert not isinstance(part.numeric, np.ndarray)  # no copy of the store


def test_trees_see_the_columns_of_a_copy(rows, experiment):
    part = subset(rows, CHOSEN)
    sequences = {
        name: RaggedArray(r.values[0 : len(r.values)], r.offsets)
        for name, r in part.sequences.items()
    }
    copied = replace(
        rows,
        categorical=rows.categorical[CHOSEN],
        numeric=rows.numeric[CHOSEN],
        sequences=sequences,
        label=rows.label[CHOSEN],
    )
    config = load_experiment(CONFIGS, "LightGBM_toy").hyperparameters
    ours, theirs = (
        TreeFeatures(rows.features, config).fit(r, seed=1).transform(r, 3, 60, out_of_fold=True)
        for r in (part, copied)
    )
    np.testing.assert_array_equal(ours, theirs)
