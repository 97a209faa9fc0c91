"""On a data set of one's own, probabilities are click rates under the label's own name."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import tossctr
from tossctr.calibration.calibrate import calibrate
from tossctr.calibration.held_out import HeldOut
from tossctr.cli import main
from tossctr.errors import UserError
from tossctr.experiments.blend import blend
from tossctr.experiments.leaderboard import leaderboard
from tossctr.experiments.predictors import load_predictor
from tossctr.families.experiment import load_experiment
from tossctr.metrics.reliability import reliability
from tossctr.pipeline import submit as submitting
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.pipeline.submit import submit
from tossctr.pipeline.train import train_experiment
from tossctr.report.collect import collect
from tossctr.report.findings import findings
from tossctr.report.page import render

CPU = torch.device("cpu")
ROWS, RATE = 6_000, 0.0306

CONFIGS = {
    "dataset_config.yaml": """\
shop: &shop
    data_root: data
    data_format: parquet
    train_data: data/raw/train.parquet
    test_data: data/raw/test.parquet
    label_col: {name: bought, dtype: float}
    valid_split: {method: random, fraction: 0.4}
    feature_cols:
        - {name: city, dtype: str, type: categorical}
        - {name: price, dtype: float, type: numeric}
scored:
    <<: *shop
    objective: competition_score
""",
    "model_config.yaml": """\
Base:
    {model: LightGBM, dataset_id: shop, num_boost_round: 20, learning_rate: 0.1,
     min_data_in_leaf: 20, metrics: [AUC, logloss, AP, WLL, competition_score]}
trees: {}
others: {learning_rate: 0.05}
scored: {dataset_id: scored}
""",
}


def rows(count, seed, labelled):
    rng = np.random.default_rng(seed)
    city, price = rng.integers(0, 5, count), rng.normal(0, 1, count)
    natural = logit(RATE) - 0.7 + 0.8 * price + 0.3 * (city - 2)
    columns = {"city": [f"c{i}" for i in city], "price": price}
    if labelled:
        columns["bought"] = (rng.random(count) < expit(natural)).astype(np.float32)
    return pa.table(columns)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    for name, text in CONFIGS.items():
        (root / "configs").mkdir(exist_ok=True)
        (root / "configs" / name).write_text(text)
    (root / "data" / "raw").mkdir(parents=True)
    pq.write_table(rows(ROWS, 1, True), root / "data/raw/train.parquet")
    pq.write_table(rows(1_000, 2, False), root / "data/raw/test.parquet")
    return root


@pytest.fixture(scope="module")
def runs(project):
    """By experiment."""
    return {
        e: train_experiment(load_experiment(project / "configs", e), CPU)
        for e in ("trees", "others", "scored")
    }


def command(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--gpu", "-1"])
    assert ended.value.code == code


def test_the_command_and_python_write_click_rates(project, runs, monkeypatch, capsys):
    monkeypatch.chdir(project)
    command("predict", "--expid", "trees", "--output", "out.csv")
    assert "click rates" in capsys.readouterr().err
    written = pyarrow.csv.read_csv("out.csv")
    assert written.column_names == ["row", "bought"]
    given = written["bought"].to_numpy()
    label = pq.read_table("data/raw/train.parquet")["bought"].to_numpy()
    assert given.mean() == pytest.approx(label.mean(), rel=0.25)
    table = pq.read_table("data/raw/test.parquet")
    np.testing.assert_allclose(tossctr.predict(runs["trees"], table, gpu=-1), given, atol=1e-12)
    command(
        "predict", "--expid", "trees", "--output", "score.csv", "--objective", "competition_score"
    )
    shifted = pyarrow.csv.read_csv("score.csv")["bought"].to_numpy()
    assert shifted.mean() > 0.3
    assert "not click rates" in capsys.readouterr().err
    command("predict", "--expid", "scored", "--output", "of_its_own.csv")
    ours = tossctr.predict(runs["scored"], table, gpu=-1)
    own = pyarrow.csv.read_csv("of_its_own.csv")["bought"].to_numpy()
    np.testing.assert_allclose(ours, own, atol=1e-12)
    assert own.mean() > 0.3


def test_run_prints_no_score_of_a_competition(project, runs, monkeypatch, capsys):
    monkeypatch.chdir(project)
    command("run", "--expid", "trees", "--no-report")
    shown = capsys.readouterr().out
    assert "competition" not in shown
    assert "WLL" not in shown
    assert "logloss" in shown
    assert pyarrow.csv.read_csv("data/output/submission.csv").column_names == ["row", "bought"]


def test_evaluate_calibrates_each_row_by_a_map_that_was_fit_without_it(runs):
    raw = evaluate_run(runs["trees"], None, device=CPU)
    found = evaluate_run(runs["trees"], None, device=CPU, objective="competition_score")
    kept = json.loads((runs["scored"].folder / "calibration_competition_score.json").read_text())
    for name in ("WLL", "competition_score", "logloss", "AUC", "AP"):
        assert found[name] == pytest.approx(kept["after"][name], rel=1e-9)
    assert found["AUC"] == raw["AUC"]
    assert found["competition_score"] > raw["competition_score"]


def test_a_run_is_evaluated_on_its_held_out_rows_without_its_data(project, runs):
    prepared = project / "data" / "shop"
    away = prepared.rename(project / "data" / "away")
    try:
        found = evaluate_run(runs["trees"], None, device=CPU)
    finally:
        away.rename(prepared)
    held = pq.read_table(runs["trees"].folder / "validation.parquet")
    assert found["AUC"] == pytest.approx(roc_auc_score(held["label"], held["logit"]), abs=1e-12)
    assert found["AUC"] == pytest.approx(runs["trees"].metrics["best"]["AUC"], abs=1e-12)


def test_probabilities_stay_where_no_map_is_better():
    rng = np.random.default_rng(1)
    natural = rng.normal(-3, 1, 20_000)
    label = (rng.random(20_000) < expit(natural)).astype(np.float32)
    held = HeldOut(np.arange(20_000), label, natural, float(label.mean()))
    true = calibrate(held, "logloss")
    assert true.calibrator.method == "shift"
    np.testing.assert_array_equal(true.calibrator(natural), natural)
    assert "the model's own" in true.calibrator.describe()
    assert true.before["logloss"] == pytest.approx(log_loss(label, expit(natural)), rel=1e-9)
    off = calibrate(HeldOut(held.row, label, natural + 1, held.prior), "logloss")
    assert off.calibrator.method != "shift"
    probability = expit(off.calibrator(natural + 1))
    assert probability.mean() == pytest.approx(label.mean(), rel=0.02)
    assert log_loss(label, probability) == pytest.approx(true.before["logloss"], rel=0.002)


def test_the_calibration_error_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    z = rng.normal(-2, 1, 3_000)
    label = (rng.random(3_000) < expit(z + 0.5)).astype(float)
    found = reliability(label, expit(z), 10)
    p = expit(z)
    bins = np.array_split(np.argsort(p), 10)
    gaps = [abs(p[b].mean() - label[b].mean()) * len(b) for b in bins]
    assert found.error == pytest.approx(sum(gaps) / 3_000, rel=1e-9)


def test_a_blend_is_weighed_and_judged_by_the_data_sets_objective(project, runs, tmp_path):
    members = {name: runs[name] for name in ("trees", "others")}
    result = blend(members, tmp_path / "blend", CPU)
    assert result.objective == "logloss"
    assert set(result.gain) == {"logloss", "AP", "AUC"}
    best = min(result.singles, key=lambda name: result.singles[name]["logloss"].mean)
    assert result.best_single == best
    predictor = load_predictor(tmp_path / "blend")
    assert predictor.objective == "logloss"
    held = predictor.held_out_metrics
    assert 0.5 < held["AUC"] < 1
    for_score = blend(members, tmp_path / "score", CPU, objective="competition_score")
    assert (
        load_predictor(tmp_path / "score").objective == for_score.objective == "competition_score"
    )
    with pytest.raises(UserError, match="different objectives"):
        blend({"a": runs["trees"], "b": runs["scored"]}, tmp_path / "x", CPU)


def test_the_leaderboard_ranks_each_objective_by_its_own_metric(project, runs):
    entries = leaderboard(project / "checkpoints")
    assert [e.objective for e in entries] == ["competition_score", "logloss", "logloss"]
    _, first, second = entries
    assert first.score <= second.score  # a log loss: less is better
    assert first.score == pytest.approx(first.metrics["logloss"], rel=0.1)


def test_the_report_uses_the_metric_of_the_objective(runs):
    report = collect(runs["trees"], "trees", CPU)
    page = render([report])
    assert "ompetition score" not in page
    assert '<th scope="row">Log loss, calibrated</th>' in page
    label, z = report.scored.label, report.scored.logit
    assert report.metrics["logloss"] == pytest.approx(log_loss(label, expit(z)), rel=1e-6)
    assert report.metrics["AUC"] == pytest.approx(roc_auc_score(label, z), rel=1e-9)
    assert report.metrics["AP"] == pytest.approx(average_precision_score(label, z), rel=1e-9)


def test_with_few_clicks_no_map_is_fit_and_a_message_is_printed(capsys):
    label = np.zeros(1000, np.float32)
    label[:20] = 1
    z = np.random.default_rng(0).normal(size=1000)
    found = calibrate(HeldOut(np.arange(1000), label, z, 0.02), "logloss")
    np.testing.assert_array_equal(found.calibrator(z), z)
    assert "probabilities are not calibrated" in " ".join(capsys.readouterr().err.split())


def sample_of(path, ids, header="id,probability"):
    path.write_text("\n".join([header, *(f"{i},0" for i in ids)]) + "\n")


def test_the_sample_is_used_for_any_path_to_the_test_file(project, runs, tmp_path, monkeypatch):
    sample_of(project / "sample.csv", range(999, -1, -1))
    run = runs["trees"]
    dataset = run.experiment.dataset.model_copy(
        update={"sample_submission": project / "sample.csv"}
    )
    monkeypatch.chdir(project / "data")
    names = ("raw/test.parquet", "../data/raw/test.parquet", project / "data/raw/test.parquet")
    for name in names:
        output = tmp_path / "out.csv"
        submit(run, data=Path(name), sample=None, output=output, device=CPU, dataset=dataset)
        written = pyarrow.csv.read_csv(output)
        assert written.column_names == ["id", "probability"]
        assert written["id"].to_pylist() == list(range(999, -1, -1))


def test_a_sample_of_other_rows_is_refused_before_anything_is_scored(
    project, runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(submitting, "predict_resumable", lambda *a, **k: pytest.fail("scored"))
    sample_of(tmp_path / "short.csv", range(999))
    sample_of(tmp_path / "twice.csv", [0, *range(999)])
    options = {"data": None, "device": CPU, "output": tmp_path / "out.csv"}
    for name, message in (
        ("short", "999 rows, but the test file has 1,000"),
        ("twice", "is repeated"),
    ):
        with pytest.raises(UserError, match=message):
            submit(runs["trees"], sample=tmp_path / f"{name}.csv", **options)
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        submit(runs["trees"], sample=None, **options)


def test_no_input_is_replaced_by_the_submission(project, runs, tmp_path):
    data = tmp_path / "test.parquet"
    data.write_bytes((project / "data/raw/test.parquet").read_bytes())
    before = data.read_bytes()
    mine = tmp_path / "mine.csv"
    mine.write_text("of my own")
    for output, force in ((data, True), (project / "data/raw/train.parquet", True), (mine, False)):
        with pytest.raises(UserError, match=r"is part of the input|TossCTR did not"):
            submit(runs["trees"], data=data, sample=None, output=output, device=CPU, force=force)
    assert data.read_bytes() == before
    assert mine.read_text() == "of my own"
    submit(runs["trees"], data=data, sample=None, output=mine, device=CPU, force=True)
    assert mine.read_text().startswith("row,bought")


def test_a_submission_goes_through_standard_output(project, runs, monkeypatch, capfd):
    monkeypatch.chdir(project)
    command("predict", "--expid", "trees", "--output", "/dev/stdout")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "row,bought"
    assert len(lines) == 1_001
    command("predict", "--expid", "trees", "--output", "/dev/null", "--json")
    assert json.loads(capfd.readouterr().out)["rows"] == 1_000
    assert not Path("/dev/null").is_file()
    command("run", "--expid", "trees", "--output", "/dev/null", code=2)


def test_urls_and_pipes_of_a_run_from_someone_else_are_not_opened(runs, tmp_path, monkeypatch):
    def named(path):
        dataset = runs["trees"].experiment.dataset.model_copy(update={"test_data": path})
        experiment = runs["trees"].experiment.model_copy(update={"dataset": dataset})
        return replace(runs["trees"], experiment=experiment)

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *a, **k: pytest.fail("opened"))
    os.mkfifo(tmp_path / "pipe")
    options = {"data": None, "sample": None, "output": tmp_path / "out.csv", "device": CPU}
    with pytest.raises(UserError, match=r"not opened automatically.*--data"):
        submit(named("http://10.0.0.1/rows.parquet"), **options)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        submit(named(tmp_path / "pipe"), **options)
    with pytest.raises(UserError) as caught:
        submit(named(Path("/etc/passwd")), **options)
    assert "root" not in str(caught.value)
    for path in ("http://10.0.0.1/rows.parquet", tmp_path / "pipe"):
        report = collect(named(path), "trees", CPU)
        assert report.data.distributions.other == "validation"


def test_evaluating_a_file_without_rows_is_one_line(project, runs, tmp_path):
    pq.write_table(rows(0, 1, True), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="no rows to evaluate"):
        evaluate_run(runs["trees"], tmp_path / "empty.parquet", device=CPU)


def test_json_has_null_where_a_metric_is_not_defined(project, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(project)
    table = rows(50, 1, True)
    zero = table.set_column(2, "bought", pa.array(np.zeros(50, np.float32)))
    pq.write_table(zero, tmp_path / "zero.parquet")
    command("evaluate", "--expid", "trees", "--data", tmp_path / "zero.parquet", "--json")
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["AUC"] is None
    assert found["logloss"] > 0


def test_drift_of_a_field_is_reported_without_advice(runs):
    report = collect(runs["trees"], "trees", CPU)
    drift = {"history": 3.0, "price": 0.0}
    shifted = replace(report.data, distributions=replace(report.data.distributions, drift=drift))
    found = findings(replace(report, data=shifted))
    (one,) = [f for f in found if "history" in f.text]
    assert (one.mark, one.remedy) == ("note", "")
