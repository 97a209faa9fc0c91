"""Reports of trees, folds and blends, and of several kinds at once."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from markup import Checked

from tossctr.metrics.registry import evaluate
from tossctr.report import tables
from tossctr.report.collect import collect
from tossctr.report.findings import findings
from tossctr.report.page import render, write_report

CPU = torch.device("cpu")


def body(page):
    return page[page.index("<body>") :]


@pytest.fixture(scope="module")
def of_trees(trees):
    return collect(trees, "trees", CPU)


@pytest.fixture(scope="module")
def of_folds(folds):
    return collect(folds[0], "LightGBM_toy.folds", CPU)


@pytest.fixture(scope="module")
def of_blend(blended):
    return collect(blended, "blend", CPU)


def test_trees_have_rounds_and_gains_instead_of_steps_and_attention(of_trees):
    page = render([of_trees])
    Checked(page)
    assert "Validation AUC" in page
    assert "optimiser step" not in page
    assert "Gain importance" in page
    assert "Permutation importance" in page
    assert "Attention by event age" not in page
    head = tables.history(of_trees).head
    assert head[0] == "Round"
    assert "Step" not in head
    top = next(iter(of_trees.gain))
    assert f"{of_trees.gain[top]:.2%}" in page


def test_folds_are_measured_out_of_fold(of_folds, folds):
    held = folds[0].held_out(CPU)
    assert of_folds.metrics == pytest.approx(evaluate(held.label, held.logit))
    assert of_folds.half_width["AUC"] > 0
    page = body(render([of_folds]))
    assert f"all {len(held):,} training rows, predicted out of fold" in page
    assert f"± {of_folds.half_width['AUC']:.4f}" in page
    assert "optimiser step" not in page
    assert "Permutation importance" not in page
    assert "only shown for a single run" in page
    assert len(of_folds.segments) == 4
    assert all(sum(s.rows for s in of) == len(held) for of in of_folds.segments.values())


def test_each_fold_has_its_own_score_and_weight(of_folds, folds):
    about = json.loads(folds[0].marker.read_bytes())
    rows = tables.members("folds", of_folds.members).rows
    assert [row[0] for row in rows[:4]] == list(about["runs"])
    for row, scores in zip(rows[:4], about["by_fold"], strict=True):
        assert f"{scores['AUC']:.4f}" in row
        assert row[1] == "0.250"
    held = folds[0].held_out(CPU)
    clicks = [int(held.label[held.fold == k].sum()) for k in (0, 1, 0, 1)]
    assert [f"{n} clicks" in row[-1] for n, row in zip(clicks, rows, strict=False)] == [True] * 4


def test_a_blend_has_its_members_weights_and_gain(of_blend, blended):
    about = json.loads(blended.marker.read_bytes())
    table = tables.members("blend", of_blend.members)
    assert [row[1] for row in table.rows[:2]] == [
        f"{w:.3f}" for w in about["combination"]["weights"]
    ]
    (chosen,) = table.marked
    assert table.rows[chosen][0] == f"blend: {about['combination']['method']}"
    gain = about["gain"]["competition_score"]
    said = findings(of_blend)
    assert any(f"{gain['mean']:+.4f} ± {gain['std']:.4f}" in one.text for one in said)
    settings = tables.config([of_blend])[1]
    assert settings.head == ("Setting", "blend: trees", "blend: cross")


@pytest.mark.parametrize(("mean", "mark"), [(0.01, "good"), (0.001, "watch"), (-0.01, "watch")])
def test_a_gain_within_two_standard_errors_is_not_significant(of_blend, mean, mark):
    members = replace(of_blend.members, summary="It gains.", gain=(mean, 0.002, 0.001))
    (found,) = [o for o in findings(replace(of_blend, members=members)) if o.text == "It gains."]
    assert found.mark == mark


def test_all_kinds_in_one_report(of_trees, of_folds, reports, of_blend):
    some = replace(of_trees.data, segments={"hour": of_trees.segments["hour"][5:]})
    few = replace(of_trees, data=some)
    page = render([few, of_folds, reports[0], of_blend])
    hours = re.search(r"AUC by hour[.] ([^\"]+)\"", page)[1]
    shown = re.findall(r"(?:^|; )(\d\d): ", hours)
    assert shown == sorted(shown)  # the first run lacks some hours
    checked = Checked(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert "LightGBM_toy.folds" in page
    assert "not measured on the same rows" in page
    assert "Validation AUC by round" in page
    assert len(page.encode()) < 3_000_000


def test_folds_without_their_data_still_have_a_report(folds, monkeypatch, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folds[1].folder, moved)
    first = folds[1].members[0][0]
    data = first.experiment.dataset.data_root / first.experiment.dataset.dataset_id
    data.rename(data.with_name("away"))
    try:
        page = write_report([moved], tmp_path / "r.html", CPU).read_text(encoding="utf-8")
    finally:
        data.with_name("away").rename(data)
    Checked(page)
    assert "The prepared data were not found" in page
    assert "AUC by segment" not in page
    held = folds[1].held_out(CPU)
    assert f"{evaluate(held.label, held.logit)['AUC']:.4f}" in page


def test_few_clicks_have_no_interval(of_folds):
    report = replace(of_folds, half_width={**of_folds.half_width, "AP": np.nan})
    assert tables.within(report, "AP", 4) == ""
    page = re.sub(r"dataset\.na_values.*?</tr>", "", body(render([report])))  # it lists "nan"
    assert "nan" not in page
