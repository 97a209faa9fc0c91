import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from markup import Checked

from tossctr.errors import UserError
from tossctr.experiments.folds import folds_of
from tossctr.report.findings import findings, shared
from tossctr.report.page import names_of, render, write_report
from tossctr.report.svg import plot


def with_stored(report, **changes):
    return replace(report, stored=replace(report.stored, **changes))


def with_drift(report, drift):
    return with_stored(report, distributions=replace(report.stored.distributions, drift=drift))


@pytest.fixture(scope="module")
def page(reports):
    return render(reports)


def test_a_page_needs_nothing_but_itself(page):
    assert len(page.encode()) < 3_000_000
    assert not re.search(r"<(script|link|img|iframe|object)\b", page)
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_markup_is_whole_ids_are_unique_and_every_plot_is_told_in_words(page):
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


def test_numbers_on_the_page_are_the_runs(page, reports):
    for report in reports:
        assert f"{report.metrics['AUC']:.4f}" in page
        assert f"{report.attainable['AUC']:.4f}" in page
        assert report.hashes[f"{report.name}/model.safetensors"] in page
    for setting in ("training.learning_rate", "hyperparameters.embedding_dim", "Prepare"):
        assert setting in page or setting == "Prepare"


def test_a_single_run_and_one_without_a_ceiling_render(reports):
    alone = render([with_stored(reports[1], attainable=None, truth=None)])
    Checked(alone)
    assert "attainable" not in alone.lower().split("</style>")[1]
    assert 'id="attention' not in alone


def test_names_from_data_cannot_become_markup(reports):
    hostile = '<script>alert("x")</script>$\\frac{1'
    report = replace(
        with_stored(reports[0], slices={hostile: reports[0].slices["hour"]}),
        name=hostile,
        importance=[replace(reports[0].importance[0], name=hostile)],
    )
    page = render([report])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    Checked(page)


def test_findings_say_what_the_numbers_say(reports):
    report = reports[0]
    said = " ".join(one.text for one in findings(report))
    assert f"{report.metrics['AUC']:.4f}" in said
    moved = with_drift(report, {"hour": 0.9})
    assert any("Different in train" in o.text and "hour" in o.text for o in findings(moved))
    calm = with_drift(report, {"hour": 0.01})
    assert any(o.mark == "good" and "differs much" in o.text for o in findings(calm))


@pytest.mark.parametrize(("kept", "mark"), [(0, "watch"), (1, "good"), (2, "watch")])
def test_a_peak_at_either_end_is_no_good_sign(reports, kept, mark):
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
def test_trees_that_were_best_at_the_end_are_told_their_own_keys(reports, trees, rounds, said):
    history = [{**trees.metrics["best"], "epoch": float(i), "step": float(i)} for i in (10, rounds)]
    run = replace(trees, metrics={**trees.metrics, "history": history, "best": history[-1]})
    (found,) = [o for o in findings(replace(reports[0], run=run)) if "last validation" in o.text]
    assert said in found.remedy
    assert "epochs" not in found.remedy


def test_what_all_runs_share_is_said_once(reports):
    common, apart = shared([findings(r) for r in reports])
    assert common
    assert not any(one in of_run for one in common for of_run in apart)
    assert shared([findings(reports[0])])[0] == []


def test_names_tell_runs_apart(tmp_path):
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


def test_a_drawing_keeps_text_as_text():
    drawn = plot("one", "Title", 'say "it" & so', lambda axes: axes.set_xlabel("클릭 <a> $b$"))
    root = ET.fromstring(drawn.svg)
    assert "클릭 <a> $b$" in "".join(root.itertext())
    assert root.get("aria-label") == 'say "it" & so'
    assert "DejaVu" not in drawn.svg


def test_templates_are_in_the_package():
    import tossctr.report

    folder = Path(tossctr.report.__file__).parent / "templates"
    assert {"report.html.j2", "report.css"} <= {p.name for p in folder.iterdir()}
