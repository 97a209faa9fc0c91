"""What a config says, and where its values come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tossctr.families.experiment import load_dataset, load_experiment

Edit = Callable[[str, str, str], None]


def test_keys_go_where_they_belong(config_dir: Path) -> None:
    experiment = load_experiment(config_dir, "small")
    assert (experiment.expid, experiment.model) == ("small", "FESeq")
    assert experiment.dataset.dataset_id == "shop"
    assert experiment.training.monitor == {"AUC": 1, "logloss": -1}
    assert experiment.hyperparameters.model_dump()["sequence_field"] == ("history",)


def test_an_experiments_own_key_beats_base(config_dir: Path) -> None:
    training = load_experiment(config_dir, "small").training
    assert (training.epochs, training.learning_rate) == (5, 1e-3)


def test_a_list_of_names_is_one_feature_each(config_dir: Path) -> None:
    features = load_dataset(config_dir, "shop").features
    assert [f.name for f in features] == ["city", "item", "history", "price", "age"]
    assert {f.normalizer for f in features if f.type == "numeric"} == {"MinMaxScaler"}


def test_paths_start_at_the_projects_root(
    config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config_dir.parent)
    from_root = load_experiment(Path("configs"), "small")
    monkeypatch.chdir(tmp_path)
    from_above = load_experiment(Path("project/configs"), "small")
    root = config_dir.parent
    assert from_root == from_above
    assert from_root.dataset.train_data == root / "data/train.parquet"
    assert from_root.dataset.test_data == Path("/elsewhere/test.parquet")
    assert from_root.training.model_root == root / "checkpoints"


@pytest.mark.parametrize("written", ["1e-5", "1.e-5", "1E-5", "0.00001"])
def test_a_regulariser_is_parsed_from_any_notation_of_a_number(
    config_dir: Path, written: str
) -> None:
    overrides = [f"embedding_regularizer={written}"]
    found = load_experiment(config_dir, "small", overrides).training.embedding_regularizer
    assert isinstance(found, float)
    assert found == 1e-5


def test_a_regulariser_such_as_l1_is_kept_as_text(config_dir: Path) -> None:
    experiment = load_experiment(config_dir, "small", ["net_regularizer=l2(1e-5)"])
    assert experiment.training.net_regularizer == "l2(1e-5)"


def test_overrides_reach_experiment_and_data_set(config_dir: Path) -> None:
    experiment = load_experiment(
        config_dir,
        "small",
        [
            "learning_rate=5e-4",
            "monitor.AP=0.5",
            "net_dropout=0.2",
            "valid_split.fraction=0.25",
            "train_data=data/other.csv",
            "data_format=csv",
            "test_data=null",
            "metrics=[AUC, WLL]",
        ],
    )
    assert experiment.training.learning_rate == 5e-4
    assert experiment.training.monitor == {"AUC": 1, "logloss": -1, "AP": 0.5}
    assert experiment.training.metrics == ("AUC", "WLL")
    assert experiment.hyperparameters.model_dump()["net_dropout"] == 0.2
    assert experiment.dataset.valid_split.fraction == 0.25
    assert experiment.dataset.valid_split.method == "time"
    assert experiment.dataset.train_data == config_dir.parent / "data/other.csv"


def test_the_last_override_of_a_key_counts(config_dir: Path) -> None:
    experiment = load_experiment(config_dir, "small", ["epochs=7", "epochs=8"])
    assert experiment.training.epochs == 8


def test_a_nested_override_leaves_other_users_of_an_alias_alone(
    config_dir: Path, edit: Edit
) -> None:
    edit("dataset_config.yaml", "shop:\n", "shop: &shop\n    valid_split: {fraction: 0.5}\n")
    with (config_dir / "dataset_config.yaml").open("a") as file:
        file.write("other:\n    <<: *shop\n    max_rows: 10\n")
    changed = load_dataset(config_dir, "other", ["valid_split.fraction=0.2"])
    assert changed.valid_split.fraction == 0.2
    assert changed.max_rows == 10
    assert load_dataset(config_dir, "shop").valid_split.fraction == 0.5


def test_an_override_may_choose_the_data_set(config_dir: Path) -> None:
    text = (config_dir / "dataset_config.yaml").read_text()
    with (config_dir / "dataset_config.yaml").open("a") as file:
        file.write(text.replace("shop:", "market:"))
    assert load_experiment(config_dir, "small", ["dataset_id=market"]).dataset.dataset_id == (
        "market"
    )


def test_files_may_be_spread_over_folders(config_dir: Path) -> None:
    for name in ("dataset_config", "model_config"):
        (config_dir / name).mkdir()
    (config_dir / "dataset_config.yaml").rename(config_dir / "dataset_config" / "shop.yaml")
    base, small = (config_dir / "model_config.yaml").read_text().split("small:")
    (config_dir / "model_config.yaml").unlink()
    (config_dir / "model_config" / "base.yaml").write_text(base)
    (config_dir / "model_config" / "small.yaml").write_text("small:" + small)
    training = load_experiment(config_dir, "small").training
    assert (training.epochs, training.learning_rate) == (5, 1e-3)


def test_null_means_not_set(config_dir: Path) -> None:
    experiment = load_experiment(config_dir, "small", ["eval_steps=null", "batch_size=null"])
    assert experiment.training.batch_size == 2048


def test_fuxictrs_names_are_understood(
    config_dir: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        "model_config.yaml",
        "    epochs: 3\n",
        "    epochs: 3\n    patience: 4\n    every_x_epochs: 1\n    use_hdf5: true\n"
        "    pickle_feature_encoder: true\n    feature_specs: null\n    group_id: null\n",
    )
    edit(
        "dataset_config.yaml",
        'splitter: ","',
        'splitter: "^", padding: post, encoder: layers.MaskedSumPooling(), na_value: ""',
    )
    edit("dataset_config.yaml", "    data_root: data\n", "    data_block_size: 1000\n")
    experiment = load_experiment(config_dir, "small")
    history = experiment.dataset.features[2]
    assert experiment.training.early_stop_patience == 4
    assert history.truncating == "post"
    assert history.feature_encoder == "layers.MaskedSumPooling()"
    assert history.fill_na == ""
    notices = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].split()[0] for line in notices] == [
        "small.use_hdf5",
        "small.pickle_feature_encoder",
        "shop.data_block_size",
    ]


def test_an_inactive_feature_may_repeat_a_name(config_dir: Path, edit: Edit) -> None:
    edit(
        "dataset_config.yaml",
        "    feature_cols:\n",
        "    feature_cols:\n        - {name: age, active: false, dtype: str, type: categorical}\n",
    )
    features = load_dataset(config_dir, "shop").features
    assert [f.type for f in features if f.name == "age"] == ["numeric"]


def test_paths_may_lead_out_of_the_project(config_dir: Path) -> None:
    keys = ["data_root=../stores", "train_data=../../raw/train.parquet", "model_root=../runs"]
    experiment = load_experiment(config_dir, "small", keys)
    root = config_dir.parent
    assert experiment.dataset.data_root.resolve() == (root / "../stores").resolve()
    assert experiment.training.model_root.resolve() == (root / "../runs").resolve()
    train = experiment.dataset.train_data
    assert isinstance(train, Path)
    assert train.resolve() == (root / "../../raw/train.parquet").resolve()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_format_that_the_files_have_is_accepted(config_dir: Path, form: str) -> None:
    keys = [f"train_data=data/train.{form}", f"data_format={form}", "test_data=null"]
    assert load_experiment(config_dir, "small", keys).dataset.data_format == form
