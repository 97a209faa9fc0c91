"""What a store keeps of raw values: missing numbers for trees, users for grouped metrics.

Against pandas, scikit-learn and LightGBM itself.
"""

import json

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from tossctr.calibration.held_out import read_held_out
from tossctr.data.prepare import prepare
from tossctr.data.subset import subset
from tossctr.errors import UserError
from tossctr.experiments.blend import blend
from tossctr.experiments.fold_assignment import assign_folds
from tossctr.experiments.folds import train_folds
from tossctr.families.experiment import load_experiment
from tossctr.inference.predict import gather, predict_rows
from tossctr.interop.formats import Format
from tossctr.interop.fuxictr_export import export
from tossctr.metrics.grouped import NO_GROUP
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.runs.train import train
from tossctr.trees.features import TreeFeatures

CPU = torch.device("cpu")
ROWS = 1500
FEW = 6  # rows of most users: fewer than min_categr_count
DATASET = """
few:
    data_root: data
    train_data: train.parquet
    valid_data: valid.parquet
    label_col: {name: click}
    min_categr_count: 20
    feature_cols:
        - {name: user, type: categorical, dtype: int}
        - {name: slot, type: categorical, dtype: str, min_categr_count: 1}
        - {name: age, type: numeric, dtype: float, normalizer: StandardScaler}
        - {name: price, type: numeric, dtype: float, fill_na: -1}
"""
TREES = """
trees: {model: LightGBM, dataset_id: few, group_id: user, metrics: [gAUC, MRR, 'NDCG(k=2)'],
        num_boost_round: 60, num_leaves: 7, min_data_in_leaf: 20, learning_rate: 0.1, seed: 3}
net: {model: DCNv2, dataset_id: few, group_id: user, metrics: [gAUC, MRR, 'NDCG(k=2)'], epochs: 1,
      parallel_dnn_hidden_units: [8], embedding_dim: 4, num_workers: 0, batch_size: 256}
without: {model: LightGBM, dataset_id: few, num_boost_round: 5, min_data_in_leaf: 20}
"""


def rows(seed):
    """Users of whom most are unseen, some rows without one; an age that is missing in 40 %, and
    clicks that depend on whether it is."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, ROWS // FEW, ROWS) + 1000 * seed
    user[: ROWS // 5] = rng.integers(0, 3, ROWS // 5)  # three whom training knows
    age = rng.normal(40, 10, ROWS)
    age[rng.random(ROWS) < 0.4] = np.nan
    price = np.where(rng.random(ROWS) < 0.3, np.nan, rng.normal(5, 2, ROWS))
    slot = rng.choice(["a", "b", "c"], ROWS)
    rate = 0.15 + 0.45 * np.isnan(age) + 0.2 * (slot == "b") + 0.1 * rng.random(ROWS)
    frame = pd.DataFrame(
        {"user": pd.array(user, "Int64"), "slot": slot, "age": age, "price": price,
         "click": (rng.random(ROWS) < rate).astype(int)}
    )  # fmt: skip
    frame.loc[rng.random(ROWS) < 0.1, "user"] = pd.NA
    return frame


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    (root / "configs").mkdir()
    (root / "configs" / "dataset_config.yaml").write_text(DATASET)
    (root / "configs" / "model_config.yaml").write_text(TREES)
    for seed, name in enumerate(("train", "valid", "test"), start=1):
        rows(seed).to_parquet(root / f"{name}.parquet")
    return root


def trained(root, expid):
    experiment = load_experiment(root / "configs", expid)
    return train(experiment, prepare(experiment.dataset), CPU, root / "checkpoints" / expid)


@pytest.fixture(scope="module")
def trees(root):
    return trained(root, "trees")


def grouped_by_pandas(frame, logit):
    """gAUC, MRR and NDCG over the users of the raw file, from their definitions."""
    frame = frame.assign(logit=logit).dropna(subset="user")
    aucs, sizes, reciprocal, gains = [], [], [], []
    for _, of_user in frame.groupby("user"):
        label, score = of_user["click"].to_numpy(), of_user["logit"].to_numpy()
        if 0 < label.sum() < len(label):
            aucs.append(roc_auc_score(label, score))
            sizes.append(len(label))
        ranked = label[np.argsort(score, kind="stable")[::-1]]
        rank = np.arange(1, len(label) + 1)
        reciprocal.append((ranked / rank).sum() / max(label.sum(), 1))
        discount = np.where(rank <= 2, 1 / np.log2(rank + 1), 0)
        best = (np.sort(label)[::-1] * discount).sum()
        gains.append((ranked * discount).sum() / best if best else 0)
    return {
        "gAUC": np.average(aucs, weights=sizes),
        "MRR": np.mean(reciprocal),
        "NDCG(k=2)": np.mean(gains),
    }


@pytest.mark.parametrize("expid", ["trees", "net"])
def test_groups_are_the_users_of_the_raw_file(root, trees, capsys, expid):
    capsys.readouterr()
    run = trees if expid == "trees" else trained(root, expid)
    valid, test = (pd.read_parquet(root / f"{part}.parquet") for part in ("valid", "test"))
    if expid == "net":
        missing = int(valid["user"].isna().sum())
        assert f"{missing} of 1,500 rows have no user" in capsys.readouterr().err
    prepared = prepare(run.experiment.dataset)
    ours = prepared.valid.ids("user")
    oov = prepared.valid.features["user"].vocab_size - 1
    assert (ours == oov).mean() > 0.7  # or the test would not tell
    # While it trains, from the store, and from the file.
    expected = grouped_by_pandas(valid, predict_rows(run, prepared.valid, device=CPU))
    stored = evaluate_run(run, None, device=CPU)
    for name, value in expected.items():
        assert run.metrics["best"][name] == pytest.approx(value, abs=1e-9), name
        assert stored[name] == pytest.approx(value, abs=1e-12), name
    file = root / "test.parquet"
    _, logit, _ = gather(run.logits(file, device=CPU, labelled=True), file)
    expected = grouped_by_pandas(test, logit)
    found = evaluate_run(run, root / "test.parquet", device=CPU)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["gAUC"] != pytest.approx(found["AUC"], abs=1e-3)


def test_folds_and_blends_group_by_user(root, trees):
    frame = pd.read_parquet(root / "train.parquet")
    data = prepare(trees.experiment.dataset)
    folds = train_folds(
        trees.experiment, data, CPU, root / "folds", folds=2, method="group", seeds=[1]
    )
    held = read_held_out(root / "folds" / "oof.parquet")
    user = frame["user"].fillna(-1).to_numpy()
    assert pd.Series(held.fold)[user >= 0].groupby(user[user >= 0]).nunique().max() == 1
    assert len(set(held.fold[user == -1])) == 2  # who has no id is not one user
    expected = grouped_by_pandas(frame, held.logit)
    other = train_folds(
        trees.experiment, data, CPU, root / "other", folds=2, method="group", seeds=[2]
    )
    blend({"a": folds, "b": other}, root / "blended", CPU, method="mean")
    both = read_held_out(root / "blended" / "oof.parquet")
    np.testing.assert_array_equal(both.group, held.group)
    found = evaluate_run(folds, None, device=CPU)
    blended = grouped_by_pandas(frame, both.logit)
    of_blend = json.loads((root / "blended" / "blend.json").read_bytes())["metrics"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
        assert folds.held_out_metrics[name] == pytest.approx(value, abs=1e-12), name
        assert of_blend[name] == pytest.approx(blended[name], abs=1e-12), name


def test_data_with_users_serve_experiments_without_groups(root, trees, capsys):
    capsys.readouterr()
    without = load_experiment(root / "configs", "without")
    data = prepare(without.dataset)
    assert "nothing has changed" in capsys.readouterr().err
    run = train(without, data, CPU, root / "checkpoints" / "without")
    assert "gAUC" not in evaluate_run(run, None, device=CPU)
    # Made for it alone, it holds no users; the run that needs them says so.
    alone = load_experiment(root / "configs", "without", [f"data_root={root / 'alone'}"])
    bare = prepare(alone.dataset).valid
    assert bare.features.groups == ()
    with pytest.raises(UserError, match="the raw values of user were not kept"):
        bare.groups("user")
    assert prepare(trees.experiment.dataset).encoder.hash == trees.encoder.hash


def test_the_data_set_may_name_the_group(root, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dataset_config.yaml").write_text(DATASET + "    group_id: user\n")
    entry = "a: {model: LightGBM, dataset_id: few, metrics: [gAUC]}\n"
    (tmp_path / "configs" / "model_config.yaml").write_text(entry)
    experiment = load_experiment(tmp_path / "configs", "a")
    assert experiment.training.group_id == experiment.dataset.group_id == "user"


def test_rows_without_a_group_are_single_groups():
    group = np.array([7, 7, 7, 8, 8, *[NO_GROUP] * 15])
    label = np.arange(20) % 2
    fold = assign_folds("group", 4, label, group=group, seed=1)
    assert np.bincount(fold).tolist() == [5, 5, 5, 5]
    assert len(set(fold[:3])) == len(set(fold[3:5])) == 1


def test_trees_pass_missing_numbers_to_lightgbm(root, trees):
    """The same columns made by pandas, boosted by LightGBM: the same predictions."""
    data = prepare(trees.experiment.dataset)
    age = data.train.features.names("numeric").index("age")
    frame = pd.read_parquet(root / "train.parquet")
    np.testing.assert_array_equal(np.isnan(data.train.numeric[:, age]), frame["age"].isna())
    assert not np.isnan(data.train.numeric[:, 1 - age]).any()  # fill_na is given
    test = pd.read_parquet(root / "test.parquet")
    file = root / "test.parquet"
    _, logit, _ = gather(trees.logits(file, device=CPU, labelled=True), file)
    missing, known = (expit(logit[test["age"].isna() == flag]).mean() for flag in (True, False))
    assert missing > known + 0.2  # of 0.45, before the best round is far

    options = trees.experiment.hyperparameters
    features = TreeFeatures(data.train.features, options).fit(data.train, seed=3)
    made = features.transform(data.train, 0, ROWS, out_of_fold=True).astype(np.float64)
    mean, std = frame["age"].fillna(0).mean(), frame["age"].fillna(0).std(ddof=0)
    ours = made[:, features.names.index("age")]
    np.testing.assert_allclose(ours, (frame["age"] - mean) / std, rtol=1e-5)
    made[:, features.names.index("age")] = ((frame["age"] - mean) / std).astype(np.float32)
    names = ("num_leaves", "min_data_in_leaf", "feature_fraction", "bagging_fraction",
             "lambda_l2", "learning_rate")  # fmt: skip
    plain = lgb.train(
        {**{name: getattr(options, name) for name in names}, "objective": "binary",
         "bagging_freq": 1, "seed": 3, "deterministic": True, "force_col_wise": True,
         "verbosity": -1},
        lgb.Dataset(made, frame["click"], categorical_feature=features.categorical),
        int(trees.metrics["best"]["epoch"]),
    )  # fmt: skip
    scored = features.transform(data.valid, 0, ROWS, out_of_fold=False).astype(np.float64)
    np.testing.assert_allclose(
        plain.predict(scored, raw_score=True), predict_rows(trees, data.valid, device=CPU),
        rtol=1e-9,
    )  # fmt: skip


def test_networks_use_the_scaled_zero_for_missing_numbers(root, trees):
    data = prepare(trees.experiment.dataset)
    frame = pd.read_parquet(root / "train.parquet")
    batch = data.train.take(np.arange(ROWS))
    age = frame["age"].fillna(0)
    expected = (age - age.mean()) / age.std(ddof=0)
    at = data.train.features.names("numeric").index("age")
    np.testing.assert_allclose(batch.numeric[:, at], expected, rtol=1e-4, atol=1e-6)
    chosen = np.array([5, 700, 3])
    part = subset(data.train, chosen).take(np.arange(3))
    np.testing.assert_array_equal(part.numeric, batch.numeric[chosen])


def test_a_file_whose_missing_numbers_were_filled_is_refused_for_trees(root, trees):
    dataset = trees.experiment.dataset
    export(prepare(dataset), dataset, root / "encoded", Format.PARQUET, splits=["valid"])
    out = root / "encoded" / "valid.parquet"
    with pytest.raises(
        UserError, match=r"missing numbers filled in, but the model needs them missing: age"
    ):
        gather(trees.logits(out, device=CPU, labelled=True), out)


def test_a_category_out_of_an_index_file_has_no_group(tmp_path):
    """The last index is that of all ids not in the vocabulary, not of a user."""
    (tmp_path / "configs").mkdir()
    text = DATASET.replace("{name: user, type: categorical, dtype: int}",
                           "{name: user, type: categorical, dtype: int, remap: false,"
                           " vocab_size: 9}")  # fmt: skip
    (tmp_path / "configs" / "dataset_config.yaml").write_text(text)
    (tmp_path / "configs" / "model_config.yaml").write_text(TREES)
    frame = rows(1)
    frame["user"] = np.arange(ROWS) % 9
    for part in ("train", "valid"):
        frame.to_parquet(tmp_path / f"{part}.parquet")
    experiment = load_experiment(tmp_path / "configs", "trees")
    group = np.asarray(prepare(experiment.dataset).valid.groups("user"))
    np.testing.assert_array_equal(group, np.where(frame["user"] == 8, NO_GROUP, frame["user"]))
    assert json.loads((tmp_path / "data" / "few" / "prepare.json").read_text())["group"] == "user"
