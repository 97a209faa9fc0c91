"""Synthetic data: the raw layout, the rates known of the real files, and a truth that is true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tossctr.cli import main
from tossctr.data import schema
from tossctr.data.synthetic import BLOCK_ROWS, SyntheticFiles, make_blocks, synthesize
from tossctr.data.synthetic import truth as synthetic_truth
from tossctr.data.synthetic.sequences import IDS, PARTNERS, draw_events, joined
from tossctr.errors import UserError

ROWS, TEST_ROWS = 60_000, 9_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SyntheticFiles:
    return synthesize(tmp_path_factory.mktemp("synthetic"), ROWS, TEST_ROWS, seed=3)


@pytest.fixture(scope="module")
def train(files: SyntheticFiles) -> pa.Table:
    return pq.read_table(files.train)


@pytest.fixture(scope="module")
def events(train: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The sequences of the first 10,000 rows: values, offsets."""
    rows = [text.split(",") for text in train["seq"][:10_000].to_pylist()]
    values = np.concatenate([np.array(row, np.uint16) for row in rows])
    return values, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def test_layout_is_the_real_one(files: SyntheticFiles, shared: Path) -> None:
    """Names and order agree with the real rows, which lack only the history columns."""
    real = pq.read_schema(shared / "data" / "toss_real_1500.parquet").names
    ours = pq.read_schema(files.train)
    assert [n for n in ours.names if not n.startswith("history_")] == real


def test_layout(files: SyntheticFiles) -> None:
    train, test = pq.read_schema(files.train), pq.read_schema(files.test)
    assert len(train) == len(test) == 119
    assert test.names == ["ID", *train.names[:-1]]
    assert train.names[-1] == "clicked"
    assert train.names[80:83] == ["feat_a_18", "history_a_1", "history_a_2"]
    text = {"ID", "gender", "age_group", "inventory_id", "day_of_week", "hour", "seq"}
    for field in [*train, *test]:
        expected = pa.string() if field.name in text else pa.float32()
        assert field.type == (pa.int32() if field.name == "clicked" else expected), field.name


def test_submission_names_the_test_rows(files: SyntheticFiles) -> None:
    lines = files.sample_submission.read_text().splitlines()
    assert lines[:2] == ["ID,clicked", "TEST_0000000,0"]
    assert lines[-1] == f"TEST_{TEST_ROWS - 1:07d},0"
    ids = pq.read_table(files.test, columns=["ID"])["ID"].to_pylist()
    assert ids == [line.split(",")[0] for line in lines[1:]]


def test_the_same_seed_gives_the_same_rows_for_any_row_group_size(tmp_path: Path) -> None:
    tables = []
    for name, groups in (("one", 1), ("three", 3)):
        files = synthesize(
            tmp_path / name, 2 * BLOCK_ROWS + 10, 50, seed=7, blocks_per_group=groups
        )
        tables.append([pq.read_table(path) for path in (files.train, files.test, files.truth)])
    assert tables[0] == tables[1]
    other = synthesize(tmp_path / "other", 100, 50, seed=8)
    assert pq.read_table(other.train)["seq"] != tables[0][0]["seq"][:100]
    assert tables[0][0]["seq"][:50] != tables[0][1]["seq"]  # test does not repeat train


def test_longer_file_begins_with_the_shorter_but_for_the_clock(tmp_path: Path) -> None:
    short, long = (
        pq.read_table(synthesize(tmp_path / str(rows), rows, 1, seed=7).train)
        for rows in (5_000, 9_000)
    )
    moved = {"day_of_week", "hour", "clicked", *schema.HISTORY}
    for name in set(short.column_names) - moved:
        assert short[name].combine_chunks() == long[name][:5_000].combine_chunks(), name
    assert short["hour"] != long["hour"][:5_000]


def test_rows_are_in_time_order_over_a_week_and_the_day_after(files: SyntheticFiles) -> None:
    for path, days in ((files.train, range(1, 8)), (files.test, [1])):
        table = pq.read_table(path, columns=["day_of_week", "hour"])
        day = np.array(table["day_of_week"].to_pylist(), int)
        hours = table["hour"].to_pylist()
        assert sorted(set(day)) == list(days)
        assert set(hours) == {f"{hour:02d}" for hour in range(24)}
        assert (np.diff(day * 24 + np.array(hours, int)) >= 0).all()
    night, morning = hours.count("03"), hours.count("08")
    assert morning > 4 * night


def test_missing_values(train: pa.Table) -> None:
    unknown = train["gender"].is_null().to_numpy()
    assert unknown.mean() == pytest.approx(0.0024, abs=0.0007)
    assert (train["age_group"].is_null().to_numpy() == unknown).all()
    assert (train["feat_a_1"].is_null().to_numpy() == unknown).all()
    assert train["feat_e_3"].null_count / ROWS == pytest.approx(0.082, abs=0.004)
    for name in ("inventory_id", "day_of_week", "hour", "seq", "l_feat_1", "l_feat_12", "clicked"):
        assert train[name].null_count == 0


def test_categories_have_their_shares_and_rates(train: pa.Table) -> None:
    inventory = np.array(train["inventory_id"].to_pylist(), int)
    for slot, share in ((2, 0.25), (36, 0.15), (37, 0.14)):
        assert (inventory == slot).mean() == pytest.approx(share, abs=0.01)
    assert len(set(inventory)) >= 17  # of 18, the rarest 1 in 20,000
    clicked = train["clicked"].to_numpy()
    assert clicked.mean() == pytest.approx(0.019, abs=0.002)
    assert clicked[inventory == 2].mean() == pytest.approx(0.009, abs=0.003)
    assert clicked[inventory == 41].mean() == pytest.approx(0.041, abs=0.010)


def test_numeric_columns_keep_the_ties_and_cardinalities_of_the_real_ones(train: pa.Table) -> None:
    x = {name: train[name].to_numpy() for name in schema.NUMERIC}
    counts = {name: len(np.unique(x[name][~np.isnan(x[name])])) for name in schema.L_FEATURES}
    assert all((x[n][~np.isnan(x[n])] % 1 == 0).all() for n in schema.L_FEATURES)
    assert counts["l_feat_20"] == counts["l_feat_23"] == 1
    assert sum(count <= 7 for count in counts.values()) == 14
    assert sum(count >= 173 for count in counts.values()) == 10
    assert max(counts.values()) == counts["l_feat_12"] <= 4_856
    assert (x["l_feat_17"] == x["l_feat_9"]).all()
    assert (x["l_feat_16"] == 3 - x["l_feat_1"]).all()
    known = ~np.isnan(x["feat_b_1"])
    assert np.quantile(x["feat_b_1"][known], 0.99) == pytest.approx(13.8, rel=0.15)
    assert x["feat_b_1"][known].max() > 150
    zeros = [(x[name][known] == 0).mean() for name in schema.A_FEATURES]
    assert min(zeros) == pytest.approx(0.58, abs=0.02)
    assert 0.99 < max(zeros) < 1
    values, times = np.unique(x["feat_c_7"][known], return_counts=True)
    assert values[times.argmax()] == values.max()  # capped at the mode


def test_sequence_lengths(train: pa.Table) -> None:
    lengths = np.array([text.count(",") + 1 for text in train["seq"].to_pylist()])
    expected = [33, 197, 464, 816, 1397]
    assert np.quantile(lengths, [0.05, 0.25, 0.5, 0.75, 0.95]) == pytest.approx(expected, rel=0.05)
    assert lengths.mean() == pytest.approx(558, rel=0.03)
    assert lengths.min() == 1
    assert 3_000 < lengths.max() <= 6_590


def test_token_frequencies(events: tuple[np.ndarray, np.ndarray]) -> None:
    values, offsets = events
    count = np.sort(np.bincount(values))[::-1] / len(values)
    assert values.min() >= 1
    assert values.max() <= 584
    assert (count > 0).sum() == 530
    assert count[:10].sum() == pytest.approx(0.5, abs=0.06)
    assert count[:100].sum() == pytest.approx(0.98, abs=0.01)
    first = values[offsets[:-1]]
    assert (first == 9).mean() == pytest.approx(0.46, abs=0.02)
    assert (first == 57).mean() == pytest.approx(0.24, abs=0.02)
    repeats = values[1:] == values[:-1]
    repeats[offsets[1:-1] - 1] = False
    assert repeats.mean() == pytest.approx(0.05, abs=0.01)


def test_order_cannot_be_read_off_counts(events: tuple[np.ndarray, np.ndarray]) -> None:
    values, _ = events
    for a, b in synthetic_truth.ORDERED:
        assert PARTNERS[a] == b
        forth = ((values[:-1] == a) & (values[1:] == b)).sum()
        back = ((values[:-1] == b) & (values[1:] == a)).sum()
        assert forth > 5_000
        assert forth == pytest.approx(back, rel=0.05)


def test_joined_text_is_the_events() -> None:
    values = np.array([7, 10, 99, 100, 584, 9], np.uint16)
    text = joined(values, np.array([0, 2, 3, 3, 6]))
    assert text.to_pylist() == ["7,10", "99", "", "100,584,9"]
    text.validate(full=True)


def test_clicks_are_drawn_from_the_true_probability(files: SyntheticFiles) -> None:
    truth = pq.read_table(files.truth)
    for split, path, rows in (("train", files.train, ROWS), ("test", files.test, TEST_ROWS)):
        part = truth.filter(pa.compute.equal(truth["split"], split))
        assert part["row"].to_pylist() == list(range(rows))
        p, clicked = part["probability"].to_numpy(), part["clicked"].to_numpy()
        if split == "train":
            assert (clicked == pq.read_table(path, columns=["clicked"])["clicked"].to_numpy()).all()
        order = np.argsort(p)
        for rows_of_like_p in np.array_split(order, 10):
            mean = p[rows_of_like_p].mean()
            noise = np.sqrt(mean / len(rows_of_like_p))
            assert abs(clicked[rows_of_like_p].mean() - mean) < 4.5 * noise


def test_attainable_scores(files: SyntheticFiles) -> None:
    blocks = list(make_blocks("train", ROWS, seed=3))
    parts = {
        name: np.concatenate([block.parts[name] for block in blocks]) for name in blocks[0].parts
    }
    clicked = np.concatenate([block.clicked for block in blocks])
    auc = roc_auc_score(clicked, synthetic_truth.true_probability(parts))
    tabular = sum(parts[name] for name in parts.keys() - synthetic_truth.SEQUENCE_PARTS)
    assert auc == pytest.approx(0.828, abs=0.02)
    assert roc_auc_score(clicked, tabular) == pytest.approx(0.695, abs=0.02)
    shares = synthetic_truth.part_shares(parts)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0.003 for share in shares.values()), shares


def test_history_columns_are_weak_proxies(train: pa.Table) -> None:
    known = train["gender"].is_valid().to_numpy()
    clicked = train["clicked"].to_numpy()[known]
    a2, a3, b1, b30 = (
        train[n].to_numpy()[known]
        for n in ("history_a_2", "history_a_3", "history_b_1", "history_b_30")
    )
    assert np.corrcoef(a2, clicked)[0, 1] == pytest.approx(-0.075, abs=0.015)
    assert np.corrcoef(a3, clicked)[0, 1] == pytest.approx(0.073, abs=0.015)
    assert np.corrcoef(b1, b30)[0, 1] > 0.99


def signals(*sequence: int) -> np.ndarray:
    """The four sequence sums of one sequence."""
    values = np.array(sequence, np.uint16)
    sums: np.ndarray = synthetic_truth.sequence_signals(values, np.array([0, len(values)]))[0]
    return sums


def test_recent_events_weigh_more() -> None:
    weight, tau = synthetic_truth.INTEREST[50], synthetic_truth.RECENCY
    assert signals(50)[0] == pytest.approx(weight / tau)
    older = signals(50, *[300] * 20)[0]
    assert older == pytest.approx(weight / tau * np.exp(-20 / tau))


def test_an_ordered_pair_counts_in_its_order_only() -> None:
    for first, second in synthetic_truth.ORDERED:
        assert signals(first, second)[2] > 0
        assert signals(second, first)[2] == 0
        assert signals(first, 300, second)[2] == 0


def test_long_range_sees_the_oldest_events() -> None:
    event = synthetic_truth.LONG_RANGE[0]
    filler = [300] * 1000
    assert signals(*[event] * 200, *filler)[3] > signals(*[300] * 200, *filler)[3] + 0.1


def test_an_event_helps_one_slot_group_and_hurts_the_other() -> None:
    groups = synthetic_truth.GROUP
    slots = np.array([next(s for s in groups if groups[s] == sign) for sign in (1, -1)])
    row = [57, 516] * 30
    parts = synthetic_truth.logit_parts(
        {"gender": np.array([1, 1]), "age_group": np.array([3, 3]), "inventory_id": slots},
        np.array([12, 12]),
        {n: np.full(2, np.nan) for n in schema.NUMERIC},
        np.array(row * 2, np.uint16),
        np.array([0, len(row), 2 * len(row)]),
    )
    helped, hurt = parts["recent_x_slot"]
    assert helped == -hurt
    assert helped > 0.5
    assert parts["recent"][0] == parts["recent"][1]


def test_interest_ids_are_frequent() -> None:
    """Else the signal could not be learnt from a few thousand clicks."""
    common = set(IDS[:40].tolist())
    model = {*synthetic_truth.INTEREST, *synthetic_truth.SLOT_INTEREST, *synthetic_truth.LONG_RANGE}
    assert model <= common


def test_events_of_a_row_do_not_depend_on_other_rows_lengths() -> None:
    a, _ = draw_events(np.random.default_rng(1), np.array([5, 10]))
    b, _ = draw_events(np.random.default_rng(1), np.array([5, 20]))
    assert (a == b[:15]).all()


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    script = (
        "import resource, sys, pathlib; from tossctr.data.synthetic import synthesize;"
        "synthesize(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 1000, blocks_per_group=1);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(rows: int) -> int:
        command = [sys.executable, "-c", script, str(tmp_path / str(rows)), str(rows)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # 60,000 rows more hold 120 MB of sequences.
    assert peak(80_000) - peak(20_000) < 40_000


def small(folder: Path, **options: Any) -> SyntheticFiles:
    return synthesize(folder, 3, 2, **options)


def test_files_that_it_did_not_write_are_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / "test.parquet"
    own.write_text("a competition's")
    with pytest.raises(UserError, match=r"test\.parquet: exists, and TossCTR did not write it"):
        small(tmp_path)
    assert [*tmp_path.iterdir()] == [own]
    small(tmp_path, force=True)
    before = own.read_bytes()
    small(tmp_path, seed=3)  # its own are
    assert own.read_bytes() != before
    own.write_text("a competition's")
    with pytest.raises(UserError, match="--force"):
        small(tmp_path)
    own.unlink()
    own.symlink_to(tmp_path / "train.parquet")
    with pytest.raises(UserError, match="TossCTR did not write it"):
        small(tmp_path)


def test_synth_does_not_write_to_raw_data_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ([], ["data/raw"], ["data/raw", "--force"]):
        with pytest.raises(SystemExit) as ended:
            main(["synth", *options, "--rows", "3", "--test-rows", "2"])
        train = tmp_path / "data" / "raw" / "train.parquet"
        if not options:
            assert ended.value.code == 0
            assert {p.name for p in (tmp_path / "data").iterdir()} == {"synthetic"}
            train.parent.mkdir()
            train.write_text("ten million rows")
        else:
            assert ended.value.code == (0 if "--force" in options else 2)
            assert (train.stat().st_size == 16) == (ended.value.code == 2)


def test_an_error_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tossctr.data.synthetic._test_ids", fails)
    with pytest.raises(UserError, match="disk full"):
        synthesize(tmp_path, 10, 10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="at least 1"):
        synthesize(tmp_path, 0, 10)
