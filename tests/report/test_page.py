import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from markup import Checked

from tossctr.errors import UserError
from tossctr.experiments.predictors import folds_of
from tossctr.report.findings import findings, shared
from tossctr.report.page import names_of, render, write_report
from tossctr.report.svg import plot


def with_data(report, **changes):
    return replace(report, data=replace(report.data, **changes))


def with_drift(report, drift):
    return with_data(report, distributions=replace(report.data.distributions, drift=drift))


@pytest.fixture(scope="module")
def page(reports):
    return render(reports)


def test_the_page_is_self_contained(page):
    assert len(page.encode()) < 3_000_000
    assert not re.search(r"<(script|link|img|iframe|object)\b", page)
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_markup_is_valid_ids_are_unique_and_every_plot_has_a_description(page):
    checked = Checked(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert len(checked.images) >= 13
    for image in checked.images:
        assert image["role"] == "img"
        assert len(image["aria-label"]) > 20
    assert checked.tables == checked.headed > 15
    for target in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", page):
        assert target in checked.ids


def test_plots_take_their_colours_from_the_page(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for drawing in drawings:
        ET.fromstring(drawing)
        colours = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawing))
        assert not colours, colours
    css = page[page.index("<style>") : page.index("</style>")]
    light, dark = css.split("prefers-color-scheme: dark")
    for name in set(re.findall(r"var\(--([\w]+)\)", page)):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark or name in light.split("@media")[0]


def test_the_page_shows_the_runs_numbers(page, reports):
    for report in reports:
        assert f"{report.metrics['AUC']:.4f}" in page
        assert f"{report.attainable['AUC']:.4f}" in page
        assert report.hashes[f"{report.name}/model.safetensors"] in page
    for setting in ("training.learning_rate", "hyperparameters.embedding_dim", "Prepare"):
        assert setting in page or setting == "Prepare"


def test_one_run_without_attainable_scores_renders(reports):
    alone = render([with_data(reports[1], attainable=None, truth=None)])
    Checked(alone)
    assert "attainable" not in alone.lower().split("</style>")[1]
    assert 'id="attention' not in alone


def test_names_from_data_cannot_become_markup(reports):
    hostile = '<script>alert("x")</script>$\\frac{1'
    report = replace(
        with_data(reports[0], segments={hostile: reports[0].segments["hour"]}),
        name=hostile,
        importance=[replace(reports[0].importance[0], name=hostile)],
    )
    page = render([report])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    Checked(page)


def test_findings_follow_the_numbers(reports):
    report = reports[0]
    said = " ".join(one.text for one in findings(report))
    assert f"{report.metrics['AUC']:.4f}" in said
    moved = with_drift(report, {"hour": 0.9})
    assert any("Drift between train" in o.text and "hour" in o.text for o in findings(moved))
    calm = with_drift(report, {"hour": 0.01})
    assert any(o.mark == "good" and "No drift" in o.text for o in findings(calm))


@pytest.mark.parametrize(("kept", "mark"), [(0, "watch"), (1, "good"), (2, "watch")])
def test_a_peak_at_the_first_or_last_validation_is_a_warning(reports, kept, mark):
    history = [{**reports[0].history[0], "epoch": float(i + 1), "step": i} for i in range(3)]
    metrics = {**reports[0].run.metrics, "history": history, "best": history[kept]}
    report = replace(reports[0], run=replace(reports[0].run, metrics=metrics))
    (found,) = [o for o in findings(report) if ("alidation" in o.text and "best" in o.text)
                or "peaked" in o.text]  # fmt: skip
    assert found.mark == mark
    assert any("chosen on these rows" in o.text for o in findings(report))


@pytest.mark.parametrize(
    ("rounds", "said"),
    [(30, "`num_boost_round`, now 30"), (20, "smaller `min_data_in_leaf`")],
)
def test_trees_that_were_best_at_the_end_get_advice_on_their_own_keys(reports, trees, rounds, said):
    history = [{**trees.metrics["best"], "epoch": float(i), "step": float(i)} for i in (10, rounds)]
    run = replace(trees, metrics={**trees.metrics, "history": history, "best": history[-1]})
    (found,) = [o for o in findings(replace(reports[0], run=run)) if "last validation" in o.text]
    assert said in found.remedy
    assert "epochs" not in found.remedy


def test_findings_of_all_runs_are_shown_once(reports):
    common, separate = shared([findings(r) for r in reports])
    assert common
    assert not any(one in of_run for one in common for of_run in separate)
    assert shared([findings(reports[0])])[0] == []


def test_names_are_unique(tmp_path):
    a, b = tmp_path / "seed_1" / "x", tmp_path / "seed_2" / "x"
    assert names_of([a, b]) == ["seed_1/x", "seed_2/x"]
    assert names_of([a]) == ["x"]
    assert names_of([a, a]) == ["x", "x (2)"]
    assert names_of([folds_of(a), folds_of(b)]) == ["seed_1/x.folds", "seed_2/x.folds"]


def test_too_many_runs_and_no_run_are_refused(tmp_path):
    with pytest.raises(UserError, match="one to six"):
        write_report([tmp_path] * 7, tmp_path / "r.html", torch.device("cpu"))
    with pytest.raises(UserError):
        write_report([tmp_path / "none"], tmp_path / "r.html", torch.device("cpu"))
    assert not (tmp_path / "r.html").exists()


def test_a_plot_keeps_text_as_text():
    drawn = plot("one", "Title", 'say "it" & so', lambda axes: axes.set_xlabel("클릭 <a> $b$"))
    root = ET.fromstring(drawn.svg)
    assert "클릭 <a> $b$" in "".join(root.itertext())
    assert root.get("aria-label") == 'say "it" & so'
    assert "DejaVu" not in drawn.svg


def test_templates_are_in_the_package():
    import tossctr.report

    folder = Path(tossctr.report.__file__).parent / "templates"
    assert {"report.html.j2", "report.css"} <= {p.name for p in folder.iterdir()}
