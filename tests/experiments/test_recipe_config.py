"""Recipes are read, or refused in one line."""

from pathlib import Path

import pytest

from tossctr.config.yaml_file import read_mapping
from tossctr.errors import UserError
from tossctr.experiments.recipe import load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DATASET = """\
shop:
    train_data: data/train.parquet
    label_col: {name: clicked, dtype: float}
    feature_cols:
        - {name: [city, item], dtype: str, type: categorical}
"""


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A config folder with data set `shop` and experiment `small`."""
    (tmp_path / "dataset_config.yaml").write_text(DATASET)
    (tmp_path / "model_config.yaml").write_text("small: {model: DeepFM, dataset_id: shop}\n")
    return tmp_path


@pytest.mark.parametrize("name", read_mapping(CONFIGS / "recipes.yaml"))
def test_the_recipes_of_the_project(name):
    recipe = load_recipe(CONFIGS, name, ["seed=7"])
    assert {e.model for e in recipe.experiments} == {"FESeq", "DCNv2Seq", "LightGBM"}
    assert recipe.seeds == (7,)
    assert recipe.folds >= 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("experiments: [small]", "experiments must be a longer list"),
        ("experiments: [small, small]", "experiments has a repeated name"),
        ("experiments: [small, mix]", "experiments has a repeated name"),
        ("{experiments: [small, other], fold: 3}", "did you mean folds"),
        ("{experiments: [small, other], folds: 1}", "folds must be at least 2"),
        ("{experiments: [small, other], fold_method: times}", "did you mean time"),
        ("experiments: [small, absent]", "absent"),
        ("experiments: [small, other]", "do not share train_data: other and small differ"),
    ],
)
def test_an_invalid_recipe_is_refused_with_the_reason(config_dir, entry, message):
    model, dataset = config_dir / "model_config.yaml", config_dir / "dataset_config.yaml"
    model.write_text(model.read_text() + "other: {model: DeepFM, dataset_id: elsewhere}\n")
    shop = dataset.read_text()
    dataset.write_text(
        shop + shop.replace("shop:", "elsewhere:").replace("data/train", "data/other")
    )
    (config_dir / "recipes.yaml").write_text(f"mix:\n    {entry}\n")
    with pytest.raises(UserError) as error:
        load_recipe(config_dir, "mix")
    assert message in error.value.line()


def test_for_an_unknown_recipe_the_nearest_is_suggested(config_dir):
    (config_dir / "recipes.yaml").write_text("best: {experiments: [small, other]}\n")
    with pytest.raises(UserError, match="no recipe 'bets'") as error:
        load_recipe(config_dir, "bets")
    assert "did you mean best?" in error.value.line()
