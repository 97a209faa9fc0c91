"""An experiment written to a run's folder comes back as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.config.schema import (
    DatasetConfig,
    Experiment,
    FeatureConfig,
    LabelSpec,
    TrainingConfig,
    ValidSplit,
)
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment, read_experiment, save_experiment
from tossctr.metrics.registry import METRICS, default_metrics
from tossctr.models import MODELS

TEXT = st.text(min_size=1, max_size=20)
IDS = TEXT.map(lambda text: "id" + re.sub(r"[/\\\x00]", "_", text))  # names of folders
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
COUNT = st.integers(1, 10**9)
WIDTH = st.integers(1, 2**16)
SEED = st.integers(0, 2**31 - 1)
METRIC = st.sampled_from(default_metrics())
REGULARIZER = st.none() | FINITE | TEXT
FILL = st.none() | st.text(max_size=5) | st.integers() | FINITE
PATH = TEXT.map(lambda text: Path("/data") / text.replace("/", "_"))

FEATURES = st.builds(
    FeatureConfig,
    name=TEXT,
    type=st.sampled_from(["categorical", "numeric", "sequence", "time", "meta"]),
    dtype=st.sampled_from(["str", "int", "float"]),
    active=st.booleans(),
    min_categr_count=st.none() | COUNT,
    fill_na=FILL,
    splitter=st.none() | TEXT,
    max_len=st.none() | COUNT,
    truncating=st.sampled_from(["pre", "post"]),
    normalizer=st.sampled_from([None, "MinMaxScaler", "StandardScaler"]),
)
DATASETS = st.builds(
    DatasetConfig,
    dataset_id=IDS,
    train_data=PATH,
    valid_data=st.none() | PATH,
    max_rows=st.none() | COUNT,
    valid_split=st.builds(
        ValidSplit,
        method=st.sampled_from(["time", "random", "stratified"]),
        fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
        seed=SEED,
    ),
    label_col=st.builds(LabelSpec, name=TEXT),
    feature_cols=st.lists(FEATURES, max_size=4).map(tuple),
)
TRAININGS = st.builds(
    TrainingConfig,
    epochs=COUNT,
    learning_rate=POSITIVE,
    max_gradient_norm=POSITIVE,
    embedding_regularizer=REGULARIZER,
    monitor=st.fixed_dictionaries(
        {},
        optional={
            n: POSITIVE if METRICS[n].higher_is_better else POSITIVE.map(lambda x: -x)
            for n in default_metrics()
        },
    ).filter(bool),
    metrics=st.lists(METRIC, max_size=3).map(tuple),
    eval_steps=st.none() | COUNT,
    model_root=PATH,
)
HYPERPARAMETERS = st.builds(
    MODELS["FESeq"].Config,
    target_field=st.just(("item",)),
    sequence_field=st.just(("history",)),
    default_field=st.lists(TEXT, max_size=3).map(tuple),
    embedding_dim=WIDTH,
    net_dropout=st.floats(0, 1, exclude_max=True),
    dnn_hidden_units=st.lists(WIDTH, max_size=3).map(tuple),
)
EXPERIMENTS = st.builds(
    Experiment,
    expid=IDS,
    model=st.just("FESeq"),
    dataset=DATASETS,
    training=TRAININGS,
    hyperparameters=HYPERPARAMETERS,
)


@settings(max_examples=50, deadline=None)
@given(EXPERIMENTS)
def test_any_experiment_round_trips(experiment: Experiment) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.json"
        save_experiment(experiment, file)
        found = read_experiment(file)
    assert found == experiment
    assert type(found.hyperparameters) is MODELS["FESeq"].Config


def test_a_saved_experiment_names_its_version_and_the_models_options(
    config_dir: Path, tmp_path: Path
) -> None:
    save_experiment(load_experiment(config_dir, "small"), tmp_path / "experiment.json")
    content = json.loads((tmp_path / "experiment.json").read_text())
    assert content["version"] == 2
    assert content["hyperparameters"]["sequence_field"] == ["history"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"version": 2', '"version": 1', "is not an experiment of version 2; train again"),
        ("{", "", "is not JSON: trailing characters at line 2 column 11; train again"),
        (
            '"model": "FESeq"',
            '"model": "FESec"',
            "experiment.model is not a known model (found 'FESec'); did you mean FESeq?",
        ),
        (
            '"num_heads": 2',
            '"num_heads": "two"',
            "experiment.hyperparameters.num_heads must be a whole number (found 'two')",
        ),
        (
            '"epochs": 5',
            '"epoch": 5',
            "experiment.training.epoch is not a known key (found 5); did you mean epochs?",
        ),
    ],
)
def test_a_spoilt_file_is_refused(
    config_dir: Path, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    file = tmp_path / "experiment.json"
    save_experiment(load_experiment(config_dir, "small"), file)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_experiment(file)
    assert str(caught.value) == f"{file}: {problem}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; train again"):
        read_experiment(tmp_path / "experiment.json")
