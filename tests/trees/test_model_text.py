"""Validation of LightGBM's text: its own models pass, models that would crash it do not."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import lightgbm as lgb
import numpy as np
import pytest

from tossctr.trees import model_text
from tossctr.trees.model_text import MalformedModel, check_model, without_tail

COLUMNS = 5
LEAST = 100_000  # rows in a leaf: more than there are, so that no tree can split


def rows(seed=0, n=1500):
    """Numbers with NaN, two categories, and clicks that depend on all three."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, COLUMNS))
    x[:, 3], x[:, 4] = rng.integers(0, 70, n), rng.integers(0, 3, n)
    x[rng.random(n) < 0.3, 0] = np.nan
    rate = 0.2 + 0.3 * (x[:, 3] % 3 == 1) + 0.2 * np.isnan(x[:, 0])
    return x, (rng.random(n) < rate).astype(float)


def grown(rounds=4, **options):
    x, y = rows()
    parameters = {"objective": "binary", "metric": "none", "num_leaves": 7, "verbosity": -1,
                  "num_threads": 1, **options}  # fmt: skip
    data = lgb.Dataset(x, y, categorical_feature=[3, 4])
    return lgb.train(parameters, data, rounds)


@pytest.fixture(scope="module")
def booster():
    return grown()


@pytest.fixture(scope="module")
def text(booster):
    return without_tail(booster.model_to_string())


def test_a_model_of_lightgbm_passes_and_predicts_the_same(booster, text):
    assert check_model(text, COLUMNS) == 4
    for needed in (r"cat_boundaries=0 3", r"decision_type=.*\b(8|10)\b"):  # 70 ids; NaN separate
        assert re.search(needed, text)
    x, _ = rows(seed=1)
    x[:50, 3:] = [-1, 1e9]  # ids that training did not see
    np.testing.assert_array_equal(lgb.Booster(model_str=text).predict(x), booster.predict(x))


@pytest.mark.parametrize(
    "options",
    [{"min_data_in_leaf": LEAST}, {"num_leaves": 2}, {"num_leaves": 200, "min_data_in_leaf": 1},
     {"feature_fraction": 0.5, "bagging_fraction": 0.5, "bagging_freq": 1}, {"lambda_l1": 50.0},
     {"zero_as_missing": True}, {"use_missing": False}, {"learning_rate": 1e-9}],
    ids=str,
)  # fmt: skip
def test_every_shape_of_tree_passes(options):
    booster = grown(**options)
    text = without_tail(booster.model_to_string())
    x, _ = rows(seed=2)
    check_model(text, COLUMNS)
    np.testing.assert_array_equal(lgb.Booster(model_str=text).predict(x), booster.predict(x))


def test_a_split_of_missing_values_from_all_numbers_passes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 1))
    x[:400] = np.nan
    y = (rng.random(1000) < 0.2 + 0.5 * np.isnan(x[:, 0])).astype(float)
    booster = lgb.train(
        {"objective": "binary", "num_leaves": 2, "verbosity": -1}, lgb.Dataset(x, y), 2
    )
    text = without_tail(booster.model_to_string())
    assert "threshold=inf" in text
    assert check_model(text, 1) == 2
    np.testing.assert_array_equal(lgb.Booster(model_str=text).predict(x), booster.predict(x))
    for spoilt in ("-inf", "infinity", "nan"):
        with pytest.raises(MalformedModel, match=r"tree 0|tree_sizes"):
            check_model(text.replace("threshold=inf", f"threshold={spoilt}"), 1)


@pytest.mark.parametrize(
    ("found", "put", "problem"),
    [
        ("num_tree_per_iteration=1", "num_tree_per_iteration=5", "num_tree_per_iteration"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=0", "num_tree_per_iteration"),
        ("num_class=1", "num_class=2", "num_class"),
        ("max_feature_idx=4", "max_feature_idx=5", "max_feature_idx"),
        ("sigmoid:1", "sigmoid:2", "objective"),
        ("label_index=0\n", "", "header"),
        ("feature_infos=[", "feature_infos=none [", "feature_infos"),
        ("tree_sizes=", "tree_sizes=1 ", "tree_sizes"),
        ("tree_sizes=", "tree_sizes=9", "tree_sizes"),
        ("num_leaves=7", "num_leaves=2000000000", "num_leaves=2000000000"),
        ("num_leaves=7", "num_leaves=8", "split_feature has 6"),
        ("num_leaves=7", "num_leaves=0", "num_leaves=0"),
        ("num_cat=", "num_cat=-", "num_cat=-"),
        ("split_feature=3", "split_feature=5", "split_feature is not one of 5"),
        ("decision_type=9 ", "decision_type=13 ", "decision_type"),
        ("decision_type=9 ", "decision_type=3 3 ", "decision_type has 7"),
        ("decision_type=9 ", "decision_type=8 ", "categorical splits"),
        ("threshold=0 ", "threshold=9 ", "categorical splits"),
        ("threshold=0 ", "threshold=nan ", "threshold contains an invalid number"),
        ("threshold=0 ", "threshold=1e999 ", "not finite"),
        ("leaf_value=-", "leaf_value=--", "leaf_value contains an invalid number"),
        ("leaf_value=-", "leaf_value= -", "leaf_value has 8"),
        ("left_child=2", "left_child=0", "do not form a tree"),
        ("left_child=2", "left_child=-1", "do not form a tree"),
        ("left_child=2", "left_child=6", "do not form a tree"),
        ("cat_boundaries=0 ", "cat_boundaries=1 ", "cat_boundaries"),
        ("cat_threshold=", "cat_threshold=-", "32-bit"),
        ("cat_threshold=", "cat_threshold=9", "32-bit"),
        ("cat_threshold=", "cat_threshold=1 ", "cat_boundaries"),
        ("is_linear=0", "is_linear=1", "missing or unknown lines"),
        ("shrinkage=1\n", "shrinkage=1\nleaf_const=1\n", "missing or unknown lines"),
        ("Tree=0\n", "Tree=1\n", "does not begin"),
        ("num_leaves=7\n", "num_leaves=7\r\n", "num_leaves contains"),
        ("end of trees\n", "end of trees\n\nparameters:\n", "tree_sizes"),
        ("Column_0", "Spälte_0", "ASCII"),
    ],
)
def test_a_changed_model_is_refused(text, found, put, problem):
    assert found in text
    changed = text.replace(found, put, 1)
    with pytest.raises(MalformedModel, match=problem):
        check_model(changed if found.startswith("tree_sizes") else with_sizes(changed), COLUMNS)


def with_sizes(changed):
    """The model with the tree sizes that its text has, for not only they are to be noticed."""
    head, blank, body = changed.partition("\n\n")
    starts = [body.find(f"Tree={k}\n") for k in range(4)] + [body.find("end of trees")]
    if min(starts) < 0:
        return changed
    sizes = " ".join(str(b - a) for a, b in pairwise(starts))
    rest, key, _ = head.partition("tree_sizes=")
    return f"{rest}{key}{sizes}{blank}{body}"


def test_a_cycle_or_an_unreachable_node_is_refused(text):
    # Of three nodes, the last two each other's child: each child is named once, in a circle.
    lines = {
        "num_leaves": "4", "num_cat": "0", "split_feature": "0 0 0", "split_gain": "1 1 1",
        "threshold": "1 1 1", "decision_type": "2 2 2", "left_child": "-1 2 1",
        "right_child": "-2 -3 -4", "leaf_value": "1 1 1 1", "leaf_weight": "1 1 1 1",
        "leaf_count": "1 1 1 1", "internal_value": "1 1 1", "internal_weight": "1 1 1",
        "internal_count": "1 1 1", "is_linear": "0", "shrinkage": "1",
    }  # fmt: skip

    def model(**changed):
        tree = "Tree=0\n" + "".join(f"{k}={v}\n" for k, v in {**lines, **changed}.items()) + "\n\n"
        head = text.partition("tree_sizes=")[0]
        return f"{head}tree_sizes={len(tree)}\n\n{tree}end of trees\n"

    with pytest.raises(MalformedModel, match="do not form a tree"):
        check_model(model(), COLUMNS)
    assert check_model(model(left_child="1 2 -1", right_child="-2 -3 -4"), COLUMNS) == 1
    huge = model(left_child="1 2 -1", right_child="-2 -3 -4", leaf_value="1 1 1 1.7e308")
    check_model(huge, COLUMNS)
    head, _, tree = huge.removesuffix("end of trees\n").partition("\n\n")
    twice = f"{head} {len(tree)}\n\n{tree}{tree.replace('Tree=0', 'Tree=1')}end of trees\n"
    with pytest.raises(MalformedModel, match="overflows float64"):
        check_model(twice, COLUMNS)


_LOAD = """
import json, runpy, sys
import lightgbm as lgb, numpy as np
check_model = runpy.run_path(sys.argv[1])["check_model"]  # alone: the package imports torch
rows = np.random.default_rng(0).normal(size=(50, 5)) * 30
for line in sys.stdin:
    text = json.loads(line)
    try:
        check_model(text, 5)
    except ValueError as error:
        assert "\\n" not in str(error)
        print("refused", flush=True)
        continue
    assert np.isfinite(lgb.Booster(model_str=text).predict(rows, raw_score=True)).all()
    print("predicts", flush=True)
"""


def test_no_random_mutation_crashes_the_process(text):
    """A token or line replaced, repeated, removed or swapped, or a byte changed; a crash ends the
    process, and its line is then missing."""
    rng = np.random.default_rng(20)
    tokens = ["0", "-1", "1", "7", "-8", "2000000000", "-2147483648", "4294967296", "nan", "inf",
              "1e308", "1e-320", "", "x", "1.5", "99999999999999999999"]  # fmt: skip

    def mutated():
        lines = text.split("\n")
        n = int(rng.integers(len(lines) - 1))
        match rng.integers(5):
            case 0 | 1:
                key, equals, value = lines[n].partition("=")
                words = (value if equals else key).split(" ")
                words[int(rng.integers(len(words)))] = str(rng.choice(tokens))
                lines[n] = f"{key}={' '.join(words)}" if equals else " ".join(words)
            case 2:
                lines[n] = lines[int(rng.integers(len(lines)))]
            case 3:
                del lines[n]
            case 4:
                at = int(rng.integers(len(text)))
                return text[:at] + chr(rng.integers(32, 127)) + text[at + 1 :]
        return "\n".join(lines)

    cases = [mutated() for _ in range(600)]
    cases = [with_sizes(c) if rng.random() < 0.5 else c for c in cases]
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, model_text.__file__],
        input=lines, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    said = done.stdout.split()
    assert done.returncode == 0, f"{done.stderr[-500:]}\nat {cases[len(said)]}"
    assert len(said) == len(cases)
    assert said.count("refused") > 300
    assert said.count("predicts") > 50  # other numbers in their places
