"""LightGBM through the functions of the commands: training, loading, predicting, refusing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.experiments.leaderboard import leaderboard
from tossctr.families.experiment import load_experiment, overrides_by_experiment
from tossctr.files import sha256_of
from tossctr.inference.predict import gather, predict_rows
from tossctr.metrics.registry import default_metrics, evaluate
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.pipeline.submit import submit
from tossctr.runs.checks import check_model
from tossctr.runs.run_folder import HASHED, load_run
from tossctr.runs.train import train
from tossctr.trees.config import BOOSTER

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    synthesize(root, 8000, 500, seed=3)
    return root


def experiment_in(root, *keys):
    return load_experiment(
        CONFIGS,
        "LightGBM_toy",
        [f"data_root={root}", f"train_data={root / 'train.parquet'}",
         f"test_data={root / 'test.parquet'}", "valid_split.method=stratified",
         "valid_split.fraction=0.25", "num_boost_round=60", "early_stopping_rounds=60",
         "learning_rate=0.1", "top_events=20", "min_data_in_leaf=20", *keys],
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(root):
    experiment = experiment_in(root)
    check_model(experiment)
    return train(experiment, prepare(experiment.dataset), CPU, root / "run")


def test_trains_and_keeps_the_best_round(run):
    best = run.metrics["best"]
    assert best["AUC"] > 0.65  # what the columns without histories attain with 1,000 times the rows
    assert best["monitor"] == max(row["monitor"] for row in run.metrics["history"])
    assert run.model.booster.num_trees() == best["epoch"]
    assert sum(run.metrics["importance"].values()) <= 1 + 1e-9
    assert run.metrics["parameters"] > 0


def test_a_loaded_run_predicts_as_in_validation(run, root):
    valid = prepare(run.experiment.dataset).valid
    logits = predict_rows(run, valid, device=CPU)
    assert evaluate(valid.label, logits)["AUC"] == pytest.approx(run.metrics["best"]["AUC"])
    assert evaluate(valid.label, logits)["logloss"] == pytest.approx(
        run.metrics["best"]["logloss"], rel=1e-6
    )
    assert evaluate_run(run, None, device=CPU)["AUC"] == pytest.approx(run.metrics["best"]["AUC"])


def test_a_raw_file_is_predicted_like_its_stored_rows(run, root):
    data = prepare(run.experiment.dataset)
    label, logit, _ = gather(
        run.logits(root / "train.parquet", device=CPU, labelled=True, batch_rows=999),
        root / "train.parquet",
    )
    assert len(label) == len(data.train) + len(data.valid)
    stored = [predict_rows(run, rows, device=CPU) for rows in (data.train, data.valid)]
    np.testing.assert_allclose(np.sort(logit), np.sort(np.concatenate(stored)), rtol=1e-12)


def test_a_submission(run, root, tmp_path):
    rows, _ = submit(
        run, data=root / "test.parquet", sample=root / "sample_submission.csv",
        output=tmp_path / "submission.csv", device=CPU,
    )  # fmt: skip
    assert rows == 500


def test_the_same_seed_gives_the_same_trees(run, root, tmp_path):
    again = train(run.experiment, prepare(run.experiment.dataset), CPU, tmp_path / "again")
    for name in (BOOSTER, "model.safetensors"):
        assert sha256_of(again.folder / name) == sha256_of(run.folder / name)
    other = experiment_in(root, "seed=1", "num_boost_round=10")
    other = train(other, prepare(other.dataset), CPU, tmp_path / "other")
    assert sha256_of(other.folder / BOOSTER) != sha256_of(run.folder / BOOSTER)


def signed(folder):
    about = json.loads((folder / "run.json").read_text())
    about["sha256"] = {n: sha256_of(folder / n) for n in (*HASHED, BOOSTER)}
    (folder / "run.json").write_text(json.dumps(about))


@pytest.mark.parametrize("keys", [{}, {"metrics": ["AUC"]}])
def test_a_loss_is_minimised_and_all_metrics_are_reported(root, tmp_path, keys):
    written = [f"{key}={value}" for key, value in keys.items()]
    experiment = experiment_in(
        root, "monitor=logloss", "num_boost_round=25", "eval_rounds=1", "learning_rate=0.3",
        "early_stopping_rounds=30", *written,
    )  # fmt: skip
    run = train(experiment, prepare(experiment.dataset), CPU, tmp_path / "run")
    losses = [row["logloss"] for row in run.metrics["history"]]
    best = run.metrics["best"]
    assert best["logloss"] == min(losses) < max(losses)
    assert best["epoch"] == 1 + losses.index(min(losses))
    assert set(default_metrics()) <= best.keys()
    (entry,) = leaderboard(tmp_path)
    assert entry.metrics["AP"] == best["AP"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / BOOSTER).unlink(), "is missing"),
        (lambda f: (f / BOOSTER).write_text("tree\n"), "has changed"),
    ],
)
def test_a_changed_run_is_refused(run, tmp_path, change, message):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    change(folder)
    with pytest.raises(UserError, match=message):
        load_run(folder)


def test_a_file_that_is_not_a_model_is_refused(run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    (folder / BOOSTER).write_text("no trees here\n")
    signed(folder)
    with pytest.raises(UserError, match="not a LightGBM model"):
        load_run(folder)


def test_a_model_of_other_columns_is_refused(run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    content = json.loads((folder / "experiment.json").read_text())
    content["hyperparameters"]["half_lives"] = [8.0]
    (folder / "experiment.json").write_text(json.dumps(content))
    signed(folder)
    with pytest.raises(UserError, match=r"fits the config: .*max_feature_idx"):
        load_run(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("top/seq", lambda a: a + 10_000, "invalid id"),
        ("top/seq", lambda a: a * 0, "invalid id"),
        ("top/seq", lambda a: a.flip(0), "invalid id|ascending order"),
        ("prior", lambda a: a * float("nan"), "prior contains invalid counts"),
        ("clicks/seq", lambda a: a.flip(-1), "clicks/seq contains invalid counts"),
    ],
)
def test_an_impossible_state_is_refused(run, tmp_path, name, change, message):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    state = load_file(folder / "model.safetensors")
    save_file({**state, name: change(state[name]).contiguous()}, folder / "model.safetensors")
    signed(folder)
    with pytest.raises(UserError, match=message):
        load_run(folder)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("negative_sampling=0.5", "negative_sampling does not apply to LightGBM .*; remove it"),
        ("precision=bf16", "precision does not apply"),
        ("embedding_dim=8", "embedding_dim does not apply"),
        ("epochs=1", "epochs does not apply to LightGBM .*; give num_boost_round"),
        ("eval_steps=1", "give eval_rounds"),
        ("early_stop_patience=3", "patience does not apply .*; give early_stopping_rounds"),
        ("target_field=[seq]", "target_field.*sequence"),
    ],
)
def test_unsupported_keys_are_refused_before_preparing(root, key, message):
    with pytest.raises(UserError, match=message):
        check_model(experiment_in(root, key))


def of_own(tmp_path, base, own=""):
    """LightGBM in a new project, without any key."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    shutil.rmtree(tmp_path / "configs" / "model_config")
    entry = "Mine: {model: LightGBM, dataset_id: tossctr_toy" + own + "}"
    text = f"Base: {{{base}}}\n{entry}\nNet: {{model: DCNv2, dataset_id: tossctr_toy}}\n"
    (tmp_path / "configs" / "model_config.yaml").write_text(text)
    return tmp_path / "configs"


def test_trees_train_with_default_options(root, tmp_path):
    """The defaults are those of trees, even if Base has keys for networks."""
    base = "learning_rate: 1.e-3, epochs: 1, batch_size: 64, patience: 1, precision: bf16"
    given = [f"data_root={tmp_path}", f"train_data={root / 'train.parquet'}",
             "valid_split.method=stratified", "valid_split.fraction=0.3"]  # fmt: skip
    experiment = load_experiment(of_own(tmp_path, base), "Mine", given)
    assert experiment.hyperparameters.learning_rate == experiment.training.learning_rate == 0.05
    run = train(experiment, prepare(experiment.dataset), CPU, tmp_path / "run")
    assert len(run.metrics["history"]) > 8  # of 10 rounds each
    first, best = run.metrics["history"][0], run.metrics["best"]
    rate = prepare(experiment.dataset).valid.label.mean(dtype=np.float64)
    constant = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert min(row["logloss"] for row in run.metrics["history"]) < constant - 1e-3
    assert best["AUC"] > max(first["AUC"], 0.6)
    # All that any table shows, though the default `metrics` are two of them.
    assert best.keys() >= {"AUC", "logloss", "AP", "WLL", "competition_score"}


def test_keys_of_networks_are_ignored_in_base_and_refused_in_the_experiment(tmp_path):
    config = of_own(tmp_path, "epochs: 1", ", learning_rate: 0.2, batch_size: 4")
    with pytest.raises(UserError, match=r"Mine.batch_size does not apply to LightGBM"):
        load_experiment(config, "Mine")
    with pytest.raises(UserError, match=r"--set: Mine.epochs does not apply to LightGBM"):
        load_experiment(config, "Mine", ["epochs=2"])


def test_overrides_apply_to_the_experiments_that_have_the_key(tmp_path):
    config = of_own(tmp_path, "epochs: 9")
    given = ["epochs=1", "num_boost_round=7", "seed=3", "max_rows=50", "nothing=1"]
    found = overrides_by_experiment(config, ["Mine", "Net"], given)
    assert found == {
        "Mine": ["num_boost_round=7", "seed=3", "max_rows=50", "nothing=1"],
        "Net": ["epochs=1", "seed=3", "max_rows=50", "nothing=1"],
    }
    mine = load_experiment(config, "Mine", found["Mine"][:3])
    assert mine.hyperparameters.num_boost_round == 7
    with pytest.raises(UserError, match="nothing is not a known key"):
        load_experiment(config, "Mine", found["Mine"])


def test_rows_without_history_are_predicted(run):
    data = prepare(run.experiment.dataset)
    none = data.valid.sequences["seq"].offsets[:1].repeat(3)
    rows = type(data.valid)(
        features=data.valid.features,
        categorical=data.valid.categorical[:2],
        numeric=data.valid.numeric[:2],
        sequences={"seq": type(data.valid.sequences["seq"])(
            data.valid.sequences["seq"].values[:0], none)},
    )  # fmt: skip
    assert np.isfinite(predict_rows(run, rows, device=CPU)).all()
    assert len(predict_rows(run, rows, device=CPU)) == 2
