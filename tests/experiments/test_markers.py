"""Malformed markers of folds and blends are refused in one line."""

import copy
import json
import os

import pytest

from tossctr.errors import UserError
from tossctr.experiments.leaderboard import leaderboard
from tossctr.experiments.marker import read_blend, read_folds
from tossctr.experiments.predictors import load_predictor
from tossctr.metrics.registry import default_metrics

HASH = "a" * 64
MEAN_STD = {"mean": 0.5, "std": 0.1, "error": 0.05}
SCORES = dict.fromkeys(("competition_score", "AP", "WLL", "AUC"), MEAN_STD)
VALUES = dict.fromkeys(default_metrics(), 0.5)
BLEND = {
    "version": 2,
    "objective": "competition_score",
    "members": [
        {"name": name, "marker": f"../{name}/folds.json", "sha256": HASH} for name in ("a", "b")
    ],
    "out_of_fold": HASH,
    "metrics": VALUES,
    "combination": {
        "method": "rank_mean",
        "weights": [0.5, 0.5],
        "knots": [[-1.0, 1.0, -2.0, 2.0], [0.0, 0.1]],
    },
    "singles": {"a": SCORES, "b": SCORES},
    "methods": {"rank_mean": SCORES},
    "best_single": "a",
    "gain": SCORES,
}
FOLDS = {
    "version": 2,
    "method": "time",
    "folds": 2,
    "seeds": [1],
    "runs": {"seed_1/fold_0": HASH, "seed_1/fold_1": HASH},
    "out_of_fold": HASH,
    "metrics": VALUES,
    "by_fold": [VALUES, VALUES],
    "cross_validated": dict.fromkeys(default_metrics(), MEAN_STD),
    "standard_error": VALUES,
}


def changed(content, path, value):
    content = copy.deepcopy(content)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return content


MEMBER = ("members", 0, "marker")
KNOTS = ("combination", "knots")
BLENDS = [
    (("members",), None),
    (("members",), []),
    (("members",), BLEND["members"][:1]),
    (("members",), BLEND["members"] * 5_000),
    (("members",), [BLEND["members"][0]] * 2),
    (("members",), ["../a/folds.json", "../b/folds.json"]),
    (MEMBER, 3),
    (MEMBER, "folds.json\x00"),
    (MEMBER, "/etc/passwd"),
    (MEMBER, "../blend/blend.json"),  # itself
    (("members", 0, "sha256"), "short"),
    (KNOTS, []),
    (KNOTS, [[], []]),
    (KNOTS, [[0.0, 0.1, 0.2], [0.0, 0.1]]),
    (KNOTS, [[1.0, -1.0, -2.0, 2.0], [0.0, 0.1]]),
    (("combination", "weights"), [1.0]),
    (("combination", "weights"), [1.5, -0.5]),
    (("combination", "weights"), [0.0, 0.0]),
    (("combination", "method"), "median"),
    (("singles",), {}),
    (("singles", "a"), {}),
    (("methods",), {}),
    (("best_single",), "c"),
    (("gain",), {}),
    (("metrics",), {}),
    (("version",), 1),
    (("version",), 2.5),
    (("objective",), "raw"),
    (("objective",), "accuracy"),
    (("version",), "1"),
    (("more",), 1),
]
FOLDED = [
    (("folds",), 1),
    (("folds",), 10**9),
    (("folds",), 3),
    (("seeds",), []),
    (("seeds",), [2]),
    (("runs",), {}),
    (("runs",), {"../../x": HASH, "seed_1/fold_1": HASH}),
    (("by_fold",), [VALUES]),
    (("by_fold", 0), {}),
    (("metrics", "AUC"), None),
    (("cross_validated", "AUC"), {"mean": 0.5}),
]


@pytest.mark.parametrize(
    ("read", "content", "path", "value"),
    [(read_blend, BLEND, *case) for case in BLENDS]
    + [(read_folds, FOLDS, *case) for case in FOLDED],
)
def test_a_malformed_marker_is_refused(tmp_path, read, content, path, value):
    file = tmp_path / "marker.json"
    file.write_text(json.dumps(content))
    read(file)
    file.write_text(json.dumps(changed(content, path, value)))
    with pytest.raises(UserError, match=r"marker\.json: .* another version"):
        read(file)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"version": 1}', "[" * 100_000, '{"a":' * 100_000, "\x00", "NaN"]
)
def test_a_file_that_is_not_a_marker_is_refused(tmp_path, text):
    for name, read in (("blend.json", read_blend), ("folds.json", read_folds)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name}: .* another version"):
            read(tmp_path / name)


def test_the_leaderboard_leaves_out_unreadable_folders(tmp_path, capsys):
    texts = {
        "a": json.dumps(FOLDS),
        "b": "[" * 100_000,
        "c": '{"version": 1}',
        "blend": json.dumps(BLEND),
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        marker = "blend.json" if name == "blend" else "folds.json"
        (tmp_path / name / marker).write_text(text)
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "run.json")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.json").symlink_to("/dev/zero")
    assert leaderboard(tmp_path) == []
    assert capsys.readouterr().err.count("left out: ") == len(texts) + 2
    for name in texts:
        with pytest.raises(UserError):
            load_predictor(tmp_path / name)
