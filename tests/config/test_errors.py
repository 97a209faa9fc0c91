"""Each mistake in a config is one line that names file, key, value found and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tossctr.errors import UserError
from tossctr.families.experiment import load_dataset, load_experiment

Edit = Callable[[str, str, str], None]


def line(config_dir: Path, expid: str = "small", overrides: tuple[str, ...] = ()) -> str:
    """The error's line, with the config's folder cut off."""
    with pytest.raises(UserError) as caught:
        load_experiment(config_dir, expid, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{config_dir}/", "").replace(str(config_dir.parent), "<root>")


MODEL_MISTAKES = [
    (
        "    epochs: 5\n",
        "    epoch: 5\n",
        "model_config.yaml: small.epoch is not a known key (found 5); did you mean epochs?",
    ),
    (
        "epochs: 5",
        "Batch_Size: 5",
        "model_config.yaml: small.Batch_Size is not a known key (found 5); did you mean "
        "batch_size?",
    ),
    (
        "epochs: 5",
        "epochs: many",
        "model_config.yaml: small.epochs must be a whole number (found 'many')",
    ),
    (
        "epochs: 5",
        "epochs: 0",
        "model_config.yaml: small.epochs must be at least 1 (found 0)",
    ),
    (
        "epochs: 5",
        "learning_rate: -1",
        "model_config.yaml: small.learning_rate must be greater than 0 (found -1)",
    ),
    (
        "epochs: 5",
        "max_gradient_norm: .inf",
        "model_config.yaml: small.max_gradient_norm must be a finite number (found inf)",
    ),
    (
        "epochs: 5",
        "optimizer: adamm",
        "model_config.yaml: small.optimizer must be one of: adam, adamw, sgd, adagrad or rmsprop "
        "(found 'adamm'); did you mean adam?",
    ),
    (
        "epochs: 5",
        "shuffle: perhaps",
        "model_config.yaml: small.shuffle must be true or false (found 'perhaps')",
    ),
    (
        "epochs: 5",
        "embedding_regularizer: [1]",
        "model_config.yaml: small.embedding_regularizer must be a number or text (found [1])",
    ),
    (
        "epochs: 5",
        "net_dropout: 1.5",
        "model_config.yaml: small.net_dropout must be less than 1 (found 1.5)",
    ),
    (
        "epochs: 5",
        "monitor: auc",
        "model_config.yaml: small.monitor is not valid: names an unknown metric (found 'auc'); did "
        "you mean AUC?",
    ),
    (
        "epochs: 5",
        "metrics: [AUC, accuracy]",
        "model_config.yaml: small.metrics is not valid: names an unknown metric (found "
        "'accuracy'); choose one of: AP, AUC, MRR, NDCG(k=N), WLL, avgAUC, competition_score, "
        "gAUC, logloss",
    ),
    (
        "epochs: 5",
        "use_time_emb: true",
        "model_config.yaml: small is not valid: use_time_emb needs time_keys: [target time, "
        "history times]",
    ),
    (
        "model: FESeq",
        "model: FeSec",
        "model_config.yaml: small.model is not a known model (found 'FeSec'); did you mean FESeq?",
    ),
    (
        "model: FESeq",
        "model: 5",
        "model_config.yaml: small.model must be text (found 5); put it in quotes",
    ),
    (
        "    model: FESeq\n",
        "",
        "model_config.yaml: small.model is missing; add it",
    ),
    (
        "    target_field: item\n",
        "",
        "model_config.yaml: small.target_field is missing; add it",
    ),
    (
        "dataset_id: shop",
        "dataset_id: shops",
        "dataset_config.yaml: there is no data set shops; did you mean shop?",
    ),
    (
        "epochs: 5",
        "min_categr_count: 5",
        "model_config.yaml: small.min_categr_count belongs to a data set; move it to shop in "
        "dataset_config.yaml",
    ),
    (
        "epochs: 5",
        "feature_specs: {city: {}}",
        "model_config.yaml: small.feature_specs is not supported (found {'city': {}}); "
        "declare the columns under feature_cols, and unused ones with active: false",
    ),
    (
        "epochs: 5",
        "every_x_epochs: 0.5",
        "model_config.yaml: small.every_x_epochs is not supported (found 0.5); give "
        "eval_steps, the optimizer steps between two validations",
    ),
    (
        "epochs: 5",
        "patience: 1\n    early_stop_patience: 2",
        "model_config.yaml: small.patience is another name of early_stop_patience, which is also "
        "given (found 1); keep early_stop_patience only",
    ),
    (
        "    epochs: 5\n",
        "    epochs: 5\n    target_field: city\n",
        "model_config.yaml: line 11: target_field occurs twice (first on line 8); keep one of the "
        "two",
    ),
    (
        "epochs: 5",
        "epochs: [5",
        "model_config.yaml: line 11: not valid YAML: expected ',' or ']', but got "
        "'<stream end>'; check indentation, brackets and quotes there",
    ),
    (
        "Base:\n",
        "- Base:\n",
        "model_config.yaml: line 5: not valid YAML: expected <block end>, but found '?'; check "
        "indentation, brackets and quotes there",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), MODEL_MISTAKES)
def test_a_mistake_in_model_config(
    config_dir: Path, edit: Edit, old: str, new: str, expected: str
) -> None:
    edit("model_config.yaml", old, new)
    assert line(config_dir) == expected


DATASET_MISTAKES = [
    (
        "    min_categr_count: 2\n",
        "    min_categ_count: 2\n",
        "dataset_config.yaml: shop.min_categ_count is not a known key (found 2); did you mean "
        "min_categr_count?",
    ),
    (
        "    train_data: data/train.parquet\n",
        "",
        "dataset_config.yaml: shop.train_data is missing; add it",
    ),
    (
        "    train_data: data/train.parquet\n    test_data: /elsewhere/test.parquet\n",
        "    test_data: [a, b]\n",
        "dataset_config.yaml: shop.train_data is missing (1 more after this); add it",
    ),
    (
        "data_format: parquet",
        "data_format: csv",
        "dataset_config.yaml: shop.data_format is csv, but train_data is parquet by its name "
        "(found 'data/train.parquet'); correct one of the two, or leave data_format out",
    ),
    (
        "data_format: parquet",
        "data_format: paquet",
        "dataset_config.yaml: shop.data_format is not a known format (found 'paquet'); did you "
        "mean parquet?",
    ),
    (
        "dtype: float}",
        "dtyp: float}",
        "dataset_config.yaml: shop.label_col.dtyp is not a known key (found 'float'); did you "
        "mean dtype?",
    ),
    (
        "label_col: {name: clicked, dtype: float}",
        "label_col: clicked",
        "dataset_config.yaml: shop.label_col must be a mapping (found 'clicked')",
    ),
    (
        "name: clicked",
        "name: price",
        "dataset_config.yaml: shop.feature_cols[price] is the label; a model must not see the "
        "label: remove the feature",
    ),
    (
        "share_embedding: item",
        "share_embedding: itm",
        "dataset_config.yaml: shop.feature_cols[history].share_embedding names no other feature "
        "(found 'itm'); did you mean item?",
    ),
    (
        "name: [city, item], dtype: str, type: categorical",
        "name: [city, item], dtype: str, type: categorical, share_embedding: city",
        "dataset_config.yaml: shop.feature_cols[city].share_embedding names no other feature "
        "(found 'city'); choose one of: age, history, item, price",
    ),
    (
        "name: [price, age]",
        "name: [price, age, item]",
        "dataset_config.yaml: shop.feature_cols names a feature twice (found 'item'); remove one "
        "of the two, or set active: false on it",
    ),
    (
        "type: sequence",
        "type: sequences",
        "dataset_config.yaml: shop.feature_cols[history].type must be one of: categorical, "
        "numeric, sequence, time or meta (found 'sequences'); did you mean sequence?",
    ),
    (
        "normalizer: MinMaxScaler",
        "normaliser: MinMaxScaler",
        "dataset_config.yaml: shop.feature_cols[price].normaliser is not a known key (found "
        "'MinMaxScaler'); did you mean normalizer?",
    ),
    (
        "name: history, ",
        "",
        "dataset_config.yaml: shop.feature_cols[1].name is missing; add it",
    ),
    (
        "- {name: history, dtype",
        "- history\n        - {name: h, dtype",
        "dataset_config.yaml: shop.feature_cols[1] must be a mapping of keys to values (found "
        "'history')",
    ),
    (
        "name: history,",
        "name: history, preprocess: f(x),",
        "dataset_config.yaml: shop.feature_cols[history].preprocess is not supported "
        "(found 'f(x)'); write the preprocessed value to a column of the file",
    ),
    (
        "shop:\n",
        "shop:\n    valid_split: {fraction: 1}\n",
        "dataset_config.yaml: shop.valid_split.fraction must be less than 1 (found 1)",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), DATASET_MISTAKES)
def test_a_mistake_in_dataset_config(
    config_dir: Path, edit: Edit, old: str, new: str, expected: str
) -> None:
    edit("dataset_config.yaml", old, new)
    assert line(config_dir) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "learnin_rate=1",
            "--set: learnin_rate is not a known key (found 'learnin_rate=1'); did you mean "
            "learning_rate?",
        ),
        ("epochs", "--set: is not key=value (found 'epochs'); write key=value, no spaces"),
        ("epochs=x", "--set: small.epochs must be a whole number (found 'x')"),
        (  # found by benchmarks/fuzz.py: layers were built for minutes
            "stacked_transformer_layers=1000000000",
            "model_config.yaml: small is not valid: stacked_transformer_layers is "
            "more than 1000: 1000000000",
        ),
        (  # found there too: it overflowed in the first table
            f"max_len={10**20}",
            f"model_config.yaml: small is not valid: max_len is too large: {10**20}",
        ),
        (
            "valid_split.fractoin=0.2",
            "--set: shop.valid_split.fractoin is not a known key (found 0.2); did you mean "
            "fraction?",
        ),
        (
            "epochs.first=1",
            "--set: small.epochs has no key first (found 5); set epochs itself",
        ),
        (
            "metrics=[AUC",
            "--set metrics=[AUC: line 1: not valid YAML: expected ',' or ']', but got '<stream "
            "end>'; check indentation, brackets and quotes there",
        ),
    ],
)
def test_a_mistake_in_an_override(config_dir: Path, override: str, expected: str) -> None:
    assert line(config_dir, overrides=(override,)) == expected


def test_an_unknown_experiment(config_dir: Path) -> None:
    assert line(config_dir, "Smal") == (
        "model_config.yaml: there is no experiment Smal; did you mean small?"
    )
    assert line(config_dir, "Base") == (
        "model_config.yaml: there is no experiment Base; choose one of: small"
    )


def test_a_missing_file(config_dir: Path) -> None:
    (config_dir / "dataset_config.yaml").unlink()
    assert line(config_dir) == ("dataset_config.yaml: no such file; give its folder with --config")


def test_an_id_in_two_files(config_dir: Path) -> None:
    (config_dir / "model_config").mkdir()
    (config_dir / "model_config" / "more.yaml").write_text("small: {}\n")
    assert line(config_dir) == (
        f"model_config/more.yaml: small is also in {config_dir}/model_config.yaml; keep one of "
        "the two"
    ).replace(f"{config_dir}/", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"just text",
            "model_config.yaml: must be a mapping of ids to entries (found 'just text')",
        ),
        (b"small: [1]", "model_config.yaml: small must be a mapping of keys to values (found [1])"),
        (b"small: {model: caf\xe9}", "model_config.yaml: is not UTF-8 text; save it as UTF-8"),
        (b"", "model_config.yaml: there is no experiment small; add it to the file"),
        (b"small: !!python/name:os.system x", "model_config.yaml: line 1: not valid YAML: could"),
        (b"a: 2024-13-01", "model_config.yaml: not valid YAML: month must be in 1..12"),
    ],
)
def test_a_file_that_is_no_config(config_dir: Path, content: bytes, expected: str) -> None:
    (config_dir / "model_config.yaml").write_bytes(content)
    assert line(config_dir).startswith(expected)


def test_a_data_set_alone_knows_only_its_own_keys(config_dir: Path) -> None:
    with pytest.raises(UserError, match="--set: epochs is not a known key"):
        load_dataset(config_dir, "shop", ["epochs=3"])


def test_sharing_does_not_chain(config_dir: Path, edit: Edit) -> None:
    edit(
        "dataset_config.yaml",
        "    feature_cols:\n",
        "    feature_cols:\n"
        "        - {name: last, dtype: str, type: categorical, share_embedding: history}\n",
    )
    assert line(config_dir) == (
        "dataset_config.yaml: shop.feature_cols[last].share_embedding names a feature that itself "
        "shares item (found 'history'); share item"
    )


def test_a_path_may_turn_back_inside_the_root(config_dir: Path, edit: Edit) -> None:
    edit("dataset_config.yaml", "data/train.parquet", "data/../raw/train.parquet")
    load_dataset(config_dir, "shop")


def test_an_option_is_shown_as_it_is_and_a_column_as_one() -> None:
    option = UserError("a blend needs two runs or more", key="--runs", value=["a"])
    assert str(option) == "--runs: a blend needs two runs or more (found ['a'])"
    cell = UserError("not a number", file="x.csv", column="price", row=3)
    assert str(cell) == "x.csv, column price, row 3: not a number"
