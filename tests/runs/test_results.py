"""The table of results: no finished run is lost over it, and no other file is written to."""

import os
from pathlib import Path

import pytest

from tossctr.families.experiment import load_experiment
from tossctr.runs.results import FILE, append_result

CONFIGS = Path(__file__).parents[2] / "configs"
BEST = dict.fromkeys(["AUC", "logloss", "AP", "WLL", "competition_score"], 0.5)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda p: p.symlink_to(p.with_name("precious.txt")),
        lambda p: p.write_text("my,own,table\n"),
    ],
)
def test_another_results_file_is_left_unchanged(tmp_path, make, capsys):
    experiment = load_experiment(CONFIGS, "LightGBM_toy")
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    make(tmp_path / FILE)
    append_result(tmp_path, experiment, BEST, "1")
    assert "results.csv was not updated" in capsys.readouterr().err
    assert precious.read_text() == "kept"
    for finished in ("1", "2", "1"):  # a kill before the run was in place: the row is there
        append_result(tmp_path / "new", experiment, BEST, finished)
    assert len((tmp_path / "new" / FILE).read_text().splitlines()) == 3
