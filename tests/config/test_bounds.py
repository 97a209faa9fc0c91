"""Every integer of every config class has bounds, within which a model can be built."""

import re
from typing import Annotated, get_args, get_origin

import pytest
from pydantic import ValidationError

from tossctr.config import schema
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.models import MODELS
from tossctr.trees.config import LightGBMConfig

CLASSES = [
    schema.DatasetConfig, schema.FeatureConfig, schema.ValidSplit, schema.TrainingConfig,
    *(model.Config for model in MODELS.values()), LightGBMConfig,
]  # fmt: skip
FREE = {"fill_na"}  # a value of the column, not a size


def kinds(annotation):
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if annotation is int:
        return {"int"}
    if get_origin(annotation) is tuple and "int" in kinds(get_args(annotation)[0]):
        return {"list"}
    return {kind for part in get_args(annotation) for kind in kinds(part)}


FIELDS = [
    (model, name, kind)
    for model in CLASSES
    for name, field in model.model_fields.items()
    for kind in kinds(field.annotation) & {"int", "list"}
    if name not in FREE
]


REQUIRED = {
    "dataset_id": "d", "train_data": "train.parquet", "label_col": {"name": "y"},
    "feature_cols": [], "name": "x", "type": "sequence", "dtype": "str",
}  # fmt: skip


def built(model, **values):
    needed = {
        name: REQUIRED.get(name, ["x"])  # of a model, the names of fields
        for name, field in model.model_fields.items()
        if field.is_required()
    }
    if "model_structure" in model.model_fields:
        needed["model_structure"] = "crossnet_only"  # the others need hidden layers
    return model.model_validate({**needed, **values})


def test_there_are_such_keys():
    assert len(FIELDS) > 40
    assert {kind for _, _, kind in FIELDS} == {"int", "list"}


@pytest.mark.parametrize(("model", "name", "kind"), FIELDS)
def test_no_number_is_without_bounds(model, name, kind):
    outside = [-2, 2**31, 2**32, 10**30]
    if kind == "list":
        outside = [[n] for n in (0, *outside)] + [[1] * 200_000]
    built(model)  # without it nothing is wrong
    for value in outside:
        with pytest.raises((UserError, ValidationError), match=name):
            built(model, **{name: value})


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("seed=-1", "must be at least 0"),
        ("seed=4294967296", "must be at most 2.14748e+09"),
        ("dnn_hidden_units=[-1]", "must be at least 1"),
        (f"dnn_hidden_units={[1] * 2000}", "must be a shorter list"),
        ("embedding_dim=100000", "must be at most 65536"),
    ],
)
def test_a_number_out_of_bounds_is_one_line(config_dir, key, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        load_experiment(config_dir, "small", [key])
    assert error.value.line().startswith(f"--set: small.{key.partition('=')[0]}")
    assert len(error.value.line()) < 200
