"""A small project, on disk, that tests spoil in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

DATASET = """\
shop:
    data_root: data
    data_format: parquet
    train_data: data/train.parquet
    test_data: /elsewhere/test.parquet
    min_categr_count: 2
    label_col: {name: clicked, dtype: float}
    feature_cols:
        - {name: [city, item], dtype: str, type: categorical}
        - {name: history, dtype: str, type: sequence, splitter: ",", share_embedding: item}
        - {name: [price, age], dtype: float, type: numeric, normalizer: MinMaxScaler, fill_na: 0}
"""

MODEL = """\
Base:
    learning_rate: 1e-3
    epochs: 3
    monitor: {AUC: 1, logloss: -1}
small:
    model: FESeq
    dataset_id: shop
    target_field: item
    sequence_field: history
    epochs: 5
"""


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """`<project>/configs` with data set `shop` and experiment `small`."""
    folder = tmp_path / "project" / "configs"
    folder.mkdir(parents=True)
    (folder / "dataset_config.yaml").write_text(DATASET)
    (folder / "model_config.yaml").write_text(MODEL)
    return folder


@pytest.fixture
def edit(config_dir: Path) -> Callable[[str, str, str], None]:
    """Replace a text that occurs once in one of the two files."""

    def replace(name: str, old: str, new: str) -> None:
        file = config_dir / name
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} must occur once"
        file.write_text(text.replace(old, new))

    return replace
