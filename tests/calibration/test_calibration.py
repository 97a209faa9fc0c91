"""Calibration recovers the loss of the true probabilities and keeps the ranking."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from tossctr.artefact import sealed, unsealed
from tossctr.calibration.calibrate import calibrate, fit_calibrator, read_calibration
from tossctr.calibration.held_out import HeldOut, columns_digest, read_held_out, write_held_out
from tossctr.calibration.maps import MAPS
from tossctr.errors import UserError
from tossctr.metrics.registry import evaluate
from tossctr.metrics.reliability import reliability

ROWS = 60_000


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(1)
    natural = rng.normal(-4.2, 1.0, ROWS)
    label = (rng.random(ROWS) < expit(natural)).astype(np.float32)
    return natural, label


def held(label, z):
    return HeldOut(np.arange(len(z)), label, z, float(label.mean()))


def test_true_probabilities_need_the_prior_shift_and_nothing_else(truth):
    natural, label = truth
    found = calibrate(held(label, natural), "competition_score")
    fitted = natural - logit(label.mean(dtype=float))
    assert np.abs(found.calibrator(natural) - fitted)[np.abs(natural + 4.2) < 2].max() < 0.3
    assert found.after["WLL"] == pytest.approx(evaluate(label, fitted)["WLL"], rel=0.005)
    assert found.calibrator.shift == pytest.approx(logit(label.mean(dtype=float)))
    assert found.before["WLL"] > 1.5


@pytest.mark.parametrize("objective", ["competition_score", "logloss"])
@pytest.mark.parametrize("distort", [lambda z: 2 * z + 1, lambda z: 0.4 * z, lambda z: np.exp(z)])
def test_calibrating_distorted_logits_recovers_the_loss_of_the_truth(truth, objective, distort):
    natural, label = truth
    loss = "WLL" if objective == "competition_score" else "logloss"
    best = natural - (logit(label.mean(dtype=float)) if loss == "WLL" else 0)
    found = calibrate(held(label, distort(natural)), objective)
    assert found.calibrator.method != "shift"
    assert found.after[loss] == pytest.approx(evaluate(label, best)[loss], rel=0.01)
    assert found.after[loss] < found.before[loss]
    fitted = evaluate(label, found.calibrator(distort(natural)))
    assert fitted[loss] == pytest.approx(found.after[loss], rel=0.01)


@pytest.mark.parametrize("name", MAPS)
def test_no_map_changes_a_ranking(truth, name):
    natural, label = truth
    z = (natural + 3).astype(np.float32).astype(float)
    parameters = MAPS[name].fit(z, label.astype(float), np.ones(len(z)))
    mapped = MAPS[name].apply(z, parameters)
    before, after = evaluate(label, z), evaluate(label, mapped)
    assert abs(after["AP"] - before["AP"]) < 1e-12
    assert abs(after["AUC"] - before["AUC"]) < 1e-12
    order = np.argsort(z)
    assert (np.diff(mapped[order])[np.diff(z[order]) > 0] > 0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=2, max_size=60))
def test_isotonic_is_strictly_increasing_for_any_rows(rows):
    z = np.array([x for x, _ in rows])
    label = np.array([float(y) for _, y in rows])
    parameters = MAPS["isotonic"].fit(z, label, np.ones(len(z)))
    grid = np.linspace(-40, 40, 997)
    assert (np.diff(MAPS["isotonic"].apply(grid, parameters)) > 0).all()


def test_with_few_clicks_only_the_prior_is_shifted():
    label = np.zeros(1000, np.float32)
    label[:20] = 1
    z = np.random.default_rng(0).normal(size=1000) * 5
    found = calibrate(held(label, z), "competition_score")
    assert (found.calibrator.method, found.calibrator.parameters) == ("shift", ())
    assert found.calibrator.shift == pytest.approx(logit(0.02))
    assert not found.losses


def test_a_calibration_is_read_only_for_its_predictions_and_unchanged(tmp_path, truth):
    natural, label = truth
    rows = held(label, np.exp(natural))
    found, path = calibrate(rows, "competition_score"), tmp_path / "calibration.json"
    found.save(path, "a" * 64)
    kept = read_calibration(path, "a" * 64)
    assert found.calibrator.same_as(kept.calibrator)
    again = fit_calibrator(rows, "competition_score", kept.calibrator.method)
    assert again == found.calibrator
    assert read_calibration(path, "b" * 64) is None
    content = json.loads(path.read_text())
    assert unsealed(content) is not None
    for damage in ({"version": 1}, {"calibrator": {}}, {"more": 1}, {"held_out": "x"}):
        path.write_text(json.dumps({**content, **damage}))
        assert read_calibration(path, "a" * 64) is None
    del content["sha256"]
    content["calibrator"]["shift"] = -30.0
    path.write_text(json.dumps(sealed(content)))
    assert not found.calibrator.same_as(read_calibration(path, "a" * 64).calibrator)


def test_reliability_of_the_truth_lies_within_its_intervals(truth):
    natural, label = truth
    found = reliability(label, expit(natural), 10)
    assert sum(b.rows for b in found.bins) == ROWS
    assert sum(b.clicks for b in found.bins) == label.sum()
    assert sum(b.low <= b.predicted <= b.high for b in found.bins) >= 8
    doubled = reliability(label, np.minimum(2 * expit(natural), 1), 10)
    assert doubled.error > 10 * found.error
    shifted = expit(natural - logit(label.mean(dtype=float)))
    balanced = reliability(label, shifted, 10, balanced=True)
    assert sum(b.low <= b.predicted <= b.high for b in balanced.bins) >= 7
    assert balanced.error < 0.05 < reliability(label, shifted, 10).error


def test_held_out_files_are_read_back_and_damage_is_refused(tmp_path, truth):
    natural, label = truth
    path = tmp_path / "oof.parquet"
    fold = (np.arange(ROWS) % 3).astype(np.int16)
    given = HeldOut(np.arange(ROWS), label, natural, 0.02, "train", fold, fold.astype(np.int64))
    write_held_out(path, given)
    found = read_held_out(path)
    for name in ("row", "label", "logit", "fold", "group"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert (found.prior, found.split) == (0.02, "train")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="no held-out predictions"):
        read_held_out(path)


def rewritten(path, change, **options):
    """Change the file's columns and update its hash, as an attacker could."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"tossctr"])
    table = change(table)
    columns = {name: np.ascontiguousarray(table[name].to_numpy()) for name in table.column_names}
    about["sha256"] = columns_digest(columns)
    table = table.replace_schema_metadata({b"tossctr": json.dumps(about)})
    options = {"compression": "none", "use_dictionary": False, **options}
    pq.write_table(table, path, **options)


def with_column(name, values):
    return lambda t: t.set_column(t.column_names.index(name), name, pa.array(values))


def test_malformed_held_out_files_are_refused_with_the_reason(tmp_path, truth):
    natural, label = truth
    path = tmp_path / "oof.parquet"
    n = 100
    fold = (np.arange(n) % 3).astype(np.int16)
    given = HeldOut(np.arange(n), label[:n], natural[:n], 0.02, "train", fold)
    nothing = np.full(n, np.nan, np.float32)
    hostile = {
        "a label is not 0 or 1": with_column("label", nothing),
        "a logit is not finite": with_column("logit", np.full(n, 1e300)),
        "rows are not ascending": with_column("row", np.zeros(n, np.int64)),
        "folds are not numbered": with_column("fold", np.full(n, 7, np.int16)),
        "column logit has another type": with_column("logit", np.zeros(n, np.int64)),
        "unexpected columns": lambda t: t.drop_columns(["label"]),
        "no rows": lambda t: t.slice(0, 0),
    }
    for message, change in hostile.items():
        write_held_out(path, given)
        read_held_out(path)
        rewritten(path, change)
        with pytest.raises(UserError, match=message):
            read_held_out(path)


def test_the_row_count_is_checked_against_the_file_size_before_reading(tmp_path):
    path, rows = tmp_path / "validation.parquet", 3_000_000
    zeros = pa.table({
        "row": np.zeros(rows, np.int64), "label": np.zeros(rows, np.float32),
        "logit": np.zeros(rows),
    })  # fmt: skip
    pq.write_table(zeros.replace_schema_metadata({b"tossctr": b"{}"}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(UserError, match="more rows than fit its size"):
        read_held_out(path)
    assert pa.total_allocated_bytes() - before < 1_000_000
