"""The configs that come with the project: each loads, and says what its comments say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tossctr.config.entries import entry_ids
from tossctr.config.schema import Experiment
from tossctr.families.experiment import load_dataset, load_experiment
from tossctr.families.registry import family_of
from tossctr.models import MODELS
from tossctr.training.networks import Networks

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPIDS = entry_ids(CONFIGS, "model_config")


@pytest.mark.parametrize("expid", EXPIDS)
def test_an_experiment_loads_without_a_notice(
    expid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(CONFIGS, expid)
    assert experiment.dataset.dataset_id in entry_ids(CONFIGS, "dataset_config")
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


@pytest.mark.parametrize("size", ["toy", "medium", "full"])
def test_whole_numbers_as_ids(size: str) -> None:
    plain, ids = (load_dataset(CONFIGS, f"tossctr_{size}{variant}") for variant in ("", "_ids"))
    assert {f.name for f in ids.features} == {f.name for f in plain.features}
    assert ids.drop_redundant
    for f in ids.features:
        if f.name.startswith("l_feat_"):
            assert (f.type, f.dtype) == ("categorical", "int")
        elif f.type == "numeric":
            assert f.normalizer == "quantile"


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


def of(suffix: str) -> list[Experiment]:
    """The experiments whose ids end so."""
    return [load_experiment(CONFIGS, expid) for expid in EXPIDS if expid.endswith(suffix)]


@pytest.mark.parametrize("suffix", ["_toy", "_kuairand"])
def test_every_model_is_compared_on_equal_terms(suffix: str) -> None:
    experiments = [
        e for e in of(suffix) if isinstance(family_of(e.model), Networks)
    ]  # an epoch of theirs is one tree
    assert {experiment.model for experiment in experiments} == MODELS.keys()
    assert len({experiment.dataset for experiment in experiments}) == 1
    assert len({str(experiment.training) for experiment in experiments}) == 1
    assert len({experiment.hyperparameters.embedding_dim for experiment in experiments}) == 1


def differences(a: Experiment, b: Experiment) -> set[str]:
    """The keys in which two experiments differ, other than their ids."""
    first, second = (
        {
            **e.model_dump(include={"model", "dataset"}),
            **dict(e.training),
            **dict(e.hyperparameters),
        }
        for e in (a, b)
    )
    assert first.keys() == second.keys()
    return {key for key in first if first[key] != second[key]}


def test_each_ablation_changes_one_thing() -> None:
    full, *ablations = [load_experiment(CONFIGS, e) for e in EXPIDS if e.startswith("ablation_")]
    assert not differences(full, load_experiment(CONFIGS, "FESeq_kuairand"))
    changed = {ablation.expid: differences(full, ablation) for ablation in ablations}
    deeper = changed.pop("ablation_depth_2_2")
    assert deeper == {"use_item_feature_interaction", "item_feature_interaction_layers"}
    assert {len(keys) for keys in changed.values()} == {1}
    assert {key for keys in changed.values() for key in keys} == {
        "use_seq_feature_interaction",
        "default_field",
        "use_position_emb",
        "use_time_emb",
        "use_causal_mask",
        "seq_pooling_type",
        "seq_pooling_attn_type",
        "use_pooling_attn_scale",
        "interaction_layer_name",
        "seq_feature_interaction_layers",
    }
