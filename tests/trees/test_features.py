"""Columns for trees against plain loops, and label leakage."""

import math
from itertools import pairwise

import numpy as np
import pytest

from tossctr.data.features import FeatureMap, Field
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.errors import UserError
from tossctr.trees.config import LightGBMConfig
from tossctr.trees.features import BLOCK_ROWS, TreeFeatures

ROWS, IDS, SLOTS, COLOURS = 300, 12, 5, 7
CONFIG = LightGBMConfig(
    target_field="slot", top_events=3, half_lives=(2.0,), last_events=2, encoding_folds=4,
    encoding_smoothing=3.0,
)  # fmt: skip


def rows_of(count=ROWS, seed=0, max_len=None, truncating="pre"):
    rng = np.random.default_rng(seed)
    features = FeatureMap(
        dataset_id="d",
        label="y",
        fields=(
            Field(name="slot", type="categorical", vocab_size=SLOTS),
            Field(name="number", type="numeric"),
            Field(name="colour", type="categorical", vocab_size=COLOURS),
            Field(name="seq", type="sequence", vocab_size=IDS, max_len=max_len,
                  truncating=truncating),
            Field(name="prices", type="numeric_sequence"),
        ),
    )  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, count))])
    ids = rng.integers(1, IDS, offsets[-1]).astype(np.uint8)
    recent = [np.isin(ids[a:b][-2:], (2, 5)).sum() for a, b in pairwise(offsets)]
    return EncodedRows(
        features=features,
        categorical=np.stack(
            [rng.integers(0, SLOTS, count), rng.integers(0, COLOURS, count)], 1
        ).astype(np.uint8),
        numeric=rng.normal(size=(count, 1)).astype(np.float32),
        sequences={
            "seq": RaggedArray(ids, offsets),
            "prices": RaggedArray(rng.random(offsets[-1]).astype(np.float32), offsets),
        },
        label=(rng.random(count) < 0.15 + 0.3 * np.array(recent)).astype(np.float32),
    )


def columns(features, made):
    return dict(zip(features.names, made.T, strict=True))


def history(rows, n, name="seq"):
    ragged = rows.sequences[name]
    return ragged.values[ragged.offsets[n] : ragged.offsets[n + 1]].tolist()


def test_counts_and_rates_match_a_plain_loop():
    rows = rows_of()
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)
    got = columns(features, features.transform(rows, 0, ROWS, out_of_fold=False))
    prior = (rows.label.sum() + 0.5) / (ROWS + 1)

    def logodds(clicks, total):
        a = CONFIG.encoding_smoothing
        return math.log((clicks + a * prior) / (total - clicks + a * (1 - prior))) - math.log(
            prior / (1 - prior)
        )

    events = [(e, rows.categorical[n, 0], n) for n in range(ROWS) for e in history(rows, n)]

    def of_event(e, slot=None):
        of = [rows.label[n] for x, s, n in events if x == e and slot in (None, s)]
        return logodds(sum(of), len(of))

    colour, slot = rows.categorical[:, 1], rows.categorical[:, 0]
    for n in range(0, ROWS, 29):
        seq, prices = history(rows, n), history(rows, n, "prices")
        assert got["slot"][n] == slot[n]
        assert got["number"][n] == rows.numeric[n, 0]
        assert got["seq.length"][n] == len(seq)
        assert got["seq.distinct"][n] == len(set(seq))
        same = (colour == colour[n]) & (slot == slot[n])
        expected = logodds(rows.label[same].sum(), same.sum())
        assert got["rate[colour x slot]"][n] == pytest.approx(expected, abs=1e-5)
        if not seq:
            assert np.isnan(got["prices.last"][n])
            assert got["history[seq x slot]~2"][n] == 0
            continue
        assert got["prices.last"][n] == pytest.approx(prices[-1])
        assert got["prices.mean"][n] == pytest.approx(np.mean(prices), abs=1e-6)
        weights = 0.5 ** (np.arange(len(seq))[::-1] / 2)
        each = [of_event(e, slot[n]) for e in seq]
        assert got["history[seq x slot]"][n] == pytest.approx(np.mean(each), abs=1e-5)
        assert got["history[seq x slot]~2"][n] == pytest.approx(
            np.average(each, weights=weights), abs=1e-5
        )
        for k, event in enumerate(features.state()["top/seq"].tolist()):
            is_it = np.array(seq) == event
            assert got[f"seq.count[#{k}]"][n] == is_it.sum()
            assert got[f"seq.count[#{k}]~2"][n] == pytest.approx(weights[is_it].sum(), abs=1e-5)
        if len(seq) > 1:
            before = [m for m in range(ROWS) if history(rows, m)[-2:-1] == seq[-2:-1]]
            expected = logodds(rows.label[before].sum(), len(before))
            assert got["rate[seq.last2]"][n] == pytest.approx(expected, abs=1e-5)


def test_a_training_row_does_not_use_its_own_label():
    rows = rows_of()
    config = CONFIG.model_copy(update={"top_events": IDS})  # all: the choice cannot tell either
    before = TreeFeatures(rows.features, config).fit(rows, seed=1)
    seen = before.transform(rows, 0, ROWS, out_of_fold=True)
    for n in (0, 17, 250):
        changed = rows.label.copy()
        changed[n] = 1 - changed[n]
        other = EncodedRows(**{**vars(rows), "label": changed})
        after = TreeFeatures(rows.features, config).fit(other, seed=1)
        np.testing.assert_array_equal(
            after.transform(other, n, n + 1, out_of_fold=True)[0], seen[n]
        )
        # while rows of other folds, and rows to be scored, do see it
        assert (after.transform(other, 0, ROWS, out_of_fold=True) != seen).any()
        assert not np.array_equal(
            after.transform(rows, n, n + 1, out_of_fold=False),
            before.transform(rows, n, n + 1, out_of_fold=False),
            equal_nan=True,
        )


def test_out_of_fold_rates_of_noise_do_not_leak_the_label():
    rng = np.random.default_rng(4)
    rows = rows_of(3000, seed=4)
    rows = EncodedRows(**{**vars(rows), "label": (rng.random(3000) < 0.3).astype(np.float32)})
    # As many ids as rows have histories: seen in fold, each row's rate is its own label.
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)

    def r(out_of_fold):
        made = columns(features, features.transform(rows, 0, 3000, out_of_fold=out_of_fold))
        return np.corrcoef(made["rate[seq.last1 x slot]"], rows.label)[0, 1]

    assert r(out_of_fold=False) > 0.1  # leaks the label
    assert abs(r(out_of_fold=True)) < 0.06


def test_blocks_do_not_change_the_columns():
    rows = rows_of(BLOCK_ROWS + 50)
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)
    whole = features.transform(rows, 0, len(rows), out_of_fold=True)
    parts = [features.transform(rows, a, a + 83, out_of_fold=True) for a in range(0, 83 * 49, 83)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[: 83 * 49])


@pytest.mark.parametrize("truncating", ["pre", "post"])
def test_only_events_within_max_len_count(truncating):
    rows = rows_of(max_len=3, truncating=truncating)
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)
    got = columns(features, features.transform(rows, 0, ROWS, out_of_fold=False))
    for n in range(ROWS):
        seq = history(rows, n)
        kept = seq[-3:] if truncating == "pre" else seq[:3]
        assert got["seq.length"][n] == len(kept)
        assert got["seq.distinct"][n] == len(set(kept))


def test_the_most_correlated_ids_get_columns():
    rows = rows_of(2000)
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)
    assert {2, 5} <= set(features.state()["top/seq"].tolist())


def test_a_restored_state_gives_the_same_columns():
    rows = rows_of()
    features = TreeFeatures(rows.features, CONFIG).fit(rows, seed=1)
    again = TreeFeatures(rows.features, CONFIG).load_state(features.state())
    np.testing.assert_array_equal(
        again.transform(rows, 0, ROWS, out_of_fold=False),
        features.transform(rows, 0, ROWS, out_of_fold=False),
    )


def test_target_field_must_be_categorical():
    with pytest.raises(UserError, match=r"target_field.*numeric"):
        TreeFeatures(rows_of().features, CONFIG.model_copy(update={"target_field": ("number",)}))
