import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tossctr.metrics.registry import evaluate

NAMES = ("gAUC", "avgAUC", "MRR", "NDCG(k=1)", "NDCG(k=3)")


def plain(label, score, group):
    """A loop over the groups, straight from the definitions."""
    aucs, sizes, reciprocal, ndcg = [], [], [], {1: [], 3: []}
    for g in np.unique(group):
        y, s = label[group == g], score[group == g]
        order = np.argsort(s, kind="stable")[::-1]
        ranked = y[order]
        if 0 < y.sum() < len(y):
            aucs.append(roc_auc_score(y, s))
            sizes.append(len(y))
        places = np.arange(len(y)) + 1
        reciprocal.append((ranked / places).sum() / y.sum() if y.sum() else 0)
        best = np.sort(y)[::-1]
        for k, values in ndcg.items():
            discount = np.log2(places[:k] + 1)
            ideal = (best[:k] / discount).sum()
            values.append((ranked[:k] / discount).sum() / ideal if ideal else 0)
    return {
        "gAUC": np.average(aucs, weights=sizes) if aucs else math.nan,
        "avgAUC": np.mean(aucs) if aucs else math.nan,
        "MRR": np.mean(reciprocal),
        "NDCG(k=1)": np.mean(ndcg[1]),
        "NDCG(k=3)": np.mean(ndcg[3]),
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 12), st.booleans())
def test_metrics_within_groups_equal_a_loop_over_groups(seed, rows, groups, ties):
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(float)
    score = rng.integers(0, 5, rows).astype(float) if ties else rng.normal(size=rows)
    group = rng.integers(-(2**62), 2**62, groups)[rng.integers(0, groups, rows)]
    found = evaluate(label, score, NAMES, group=group)
    expected = plain(label, score, group)
    for name in NAMES:
        assert found[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_metrics_within_groups_need_groups():
    label, score = np.array([0, 1]), np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="group"):
        evaluate(label, score, ["gAUC"])
    with pytest.raises(KeyError):
        evaluate(label, score, ["NDCG(k=0)"], group=np.array([1, 1]))
    assert evaluate(label, score, ["gAUC", "AUC"], group=np.array([1, 1])) == {
        "gAUC": 1.0,
        "AUC": 1.0,
    }
