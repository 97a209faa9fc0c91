from dataclasses import replace

import numpy as np
import pytest
import torch

from tossctr.data.prepare import open_prepared
from tossctr.errors import UserError
from tossctr.inference.predict import predict_rows
from tossctr.metrics.registry import evaluate
from tossctr.report import sample
from tossctr.report.collect import collect
from tossctr.report.importance import attention, importance
from tossctr.report.sample import Scored, evenly, score, subset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def report(reports):
    return reports[0]


@pytest.fixture(scope="module")
def valid(runs):
    return replace(open_prepared(runs[0].experiment.dataset).valid, features=runs[0].features)


def test_metrics_are_those_of_the_validation_rows(report, runs, valid):
    whole = evaluate(valid.label, predict_rows(runs[0], valid, device=CPU))
    assert report.metrics == pytest.approx(whole)
    for name in ("AUC", "logloss", "AP"):
        assert report.metrics[name] == pytest.approx(runs[0].metrics["best"][name], abs=1e-6)


def test_baseline_and_attainable_scores_are_bounds(report):
    assert report.baseline["AUC"] == 0.5
    assert report.baseline["WLL"] == pytest.approx(np.log(2))
    assert report.attainable["AUC"] > 0.6
    assert report.attainable["logloss"] < report.baseline["logloss"]


def test_true_probabilities_of_other_rows_are_ignored(report, runs, tmp_path):
    dataset = runs[0].experiment.dataset
    split = dataset.valid_split.model_copy(update={"method": "stratified"})
    from tossctr.report.collect import _truth

    prepared = open_prepared(dataset)
    assert _truth(dataset, prepared, report.scored) is not None
    other = dataset.model_copy(update={"valid_split": split})
    assert _truth(other, prepared, report.scored) is None
    wrong = replace(report.scored, label=1 - report.scored.label)
    assert _truth(dataset, prepared, wrong) is None


def test_segments_contain_every_row_once(report):
    assert set(report.segments) == {"inventory_id", "hour", "age_group", "history length"}
    for of_field in report.segments.values():
        assert sum(s.rows for s in of_field) == len(report.scored.label)
        assert sum(s.clicks for s in of_field) == report.scored.label.sum()


def test_many_validation_rows_are_sampled_evenly(runs, valid, monkeypatch):
    monkeypatch.setattr(sample, "MAX_ROWS", 100)
    scored = score(runs[0], valid, CPU)
    assert len(scored.row) == 100
    assert (scored.row[0], scored.row[-1]) == (0, len(valid) - 1)
    assert np.diff(scored.row).max() <= np.ceil(len(valid) / 99)
    whole = predict_rows(runs[0], valid, device=CPU)
    np.testing.assert_allclose(scored.logit, whole[scored.row], atol=1e-5)
    assert evenly(10, 4).tolist() == [0, 1, 2, 3]


def test_subset_returns_the_requested_rows(valid):
    numbers = np.array([5, 0, 7])
    part = subset(valid, numbers)
    np.testing.assert_array_equal(part.numeric, valid.numeric[numbers])
    whole = valid.sequences["seq"]
    for i, n in enumerate(numbers):
        got, expected = whole.take(numbers), whole.values[whole.offsets[n] :]
        of_row = got.values[got.offsets[i] : got.offsets[i + 1]]
        np.testing.assert_array_equal(of_row, expected[: whole.lengths[n]])


def test_shuffling_lowers_the_auc_only_for_fields_that_the_model_uses(runs, valid):
    """The labels are the model's own ranking, so every field that it uses has an effect."""
    n = 400
    rows = subset(valid, np.arange(n))
    base = predict_rows(runs[0], rows, device=CPU)
    label = (base > np.median(base)).astype(float)
    scored = Scored(np.arange(n), label, base, n, 1.0)
    found, used = importance(runs[0], rows, scored, CPU)
    names = {one.name: one for one in found}
    assert used == n
    assert found == sorted(found, key=lambda one: -one.drop)
    assert found[0].drop > found[0].half_width > 0
    assert {"gender", "seq (history)", "feat_a_* (18)"} <= names.keys()
    same = replace(rows, categorical=np.ones_like(rows.categorical))
    alike = predict_rows(runs[0], same, device=CPU)
    flat, _ = importance(runs[0], same, replace(scored, logit=alike), CPU)
    assert {one.name: one for one in flat}["gender"].drop == pytest.approx(0, abs=1e-9)


def test_attention_is_per_event_and_none_for_other_models(runs, valid, report):
    found = report.attention
    assert found.low[0] == found.high[0] == 1
    assert found.high[-1] == 16  # max_len of these runs
    assert len(found.relative) == len(found.low)
    assert (found.relative > 0).all()
    plain = score(runs[1], replace(valid, features=runs[1].features), CPU)
    assert attention(runs[1], replace(valid, features=runs[1].features), plain, CPU) is None


def test_distributions_compare_train_with_test(report):
    found = report.data.distributions
    assert found.other == "test"
    assert found.rows[1] == 300
    assert found.max_len == {"seq": 16}
    assert 0 < sum(found.tokens["seq"].train) <= 1
    assert list(found.drift.values()) == sorted(found.drift.values(), reverse=True)


def test_without_a_test_file_validation_is_compared(runs):
    run = runs[0]
    dataset = run.experiment.dataset.model_copy(update={"test_data": None})
    from tossctr.report.distributions import distributions

    without = replace(run, experiment=run.experiment.model_copy(update={"dataset": dataset}))
    assert distributions(without, open_prepared(dataset)).other == "validation"


def test_data_that_were_prepared_again_are_refused(runs):
    state = runs[0].encoder.state
    other = state.model_copy(update={"vocabularies": {**state.vocabularies, "gender": ("x",)}})
    changed = replace(runs[0], encoder=type(runs[0].encoder)(other))
    with pytest.raises(UserError, match="prepared again"):
        collect(changed, "run", CPU)


def test_hashes_include_inputs_stores_and_the_run(report):
    hashes = {**report.data.hashes, **report.hashes}
    names = "\n".join(hashes)
    for part in ("train.parquet", "train/manifest.json", "FESeq_toy/model.safetensors"):
        assert part in names
    assert all(len(value) == 64 for value in hashes.values())
