"""The configs that come with the project: each loads, and says what its comments say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from tossctr.config.loader import load_dataset, load_experiment

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def ids(name: str) -> list[str]:
    """The ids in a file of the project's configs."""
    return sorted(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()).keys() - {"Base"})


@pytest.mark.parametrize("expid", ids("model_config"))
def test_an_experiment_loads_without_a_notice(
    expid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(CONFIGS, expid)
    assert experiment.dataset.dataset_id in ids("dataset_config")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("size", ["toy", "medium", "full"])
@pytest.mark.parametrize(("variant", "numeric"), [("", 75), ("_history", 112)])
def test_the_toss_columns(size: str, variant: str, numeric: int) -> None:
    dataset = load_dataset(CONFIGS, f"tossctr_{size}{variant}")
    assert Counter(f.type for f in dataset.features) == {
        "categorical": 5,
        "sequence": 1,
        "numeric": numeric,
    }
    assert all(
        (f.dtype, f.normalizer, f.fill_na) == ("float", "MinMaxScaler", 0)
        for f in dataset.features
        if f.type == "numeric"
    )
    assert any(f.name.startswith("history_") for f in dataset.features) == bool(variant)


@pytest.mark.parametrize(
    ("size", "rows", "files", "min_count", "max_len"),
    [
        ("toy", None, "toy", 1, 64),
        ("medium", 500_000, "raw", 10, 500),
        ("full", None, "raw", 10, 500),
    ],
)
def test_sizes(size: str, rows: int | None, files: str, min_count: int, max_len: int) -> None:
    for variant in ("", "_history"):
        dataset = load_dataset(CONFIGS, f"tossctr_{size}{variant}")
        assert dataset.max_rows == rows
        assert dataset.train_data == CONFIGS.parent / "data" / files / "train.parquet"
        assert dataset.min_categr_count == min_count
        assert [f.max_len for f in dataset.features if f.is_sequence] == [max_len]
