"""Recipes: experiments that are trained in folds and blended into one submission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tossctr.config.choices import FoldMethod
from tossctr.config.messages import ErrorContext, suggestion, validated
from tossctr.config.schema import Experiment
from tossctr.config.yaml_file import read_mapping
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment, overrides_by_experiment

FILE = "recipes.yaml"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    experiments: tuple[str, ...] = Field(min_length=2)
    folds: int = Field(5, ge=2)
    fold_method: FoldMethod = "stratified"
    seeds: int = Field(1, ge=1)


@dataclass(frozen=True)
class Recipe:
    """Experiments on the same raw files, and how they are trained in folds.

    Attributes:
        name: also the blend's folder under `model_root`.
        seeds: for weights and batches; each fold is trained with each.
    """

    name: str
    experiments: tuple[Experiment, ...]
    folds: int
    fold_method: FoldMethod
    seeds: tuple[int, ...]


def load_recipe(config_dir: Path, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of `recipes.yaml` and its experiments.

    Args:
        config_dir: the folder of the YAML files.
        name: an id in `recipes.yaml`.
        overrides: `key=value`, for each experiment whose model has the key.

    Raises:
        UserError: no such recipe, an invalid key or experiment, a name that occurs twice, or
            experiments that do not read the same files.
    """
    file = config_dir / FILE
    entries = read_mapping(file)
    if name not in entries:
        raise UserError(
            f"no recipe {name!r}", file=file, remedy=suggestion(name, entries, "add it there")
        )
    context = ErrorContext(file, name)
    entry = validated(_Entry, entries[name], context)
    repeated = [e for n, e in enumerate(entry.experiments) if e in entry.experiments[:n]]
    if repeated or name in entry.experiments:
        value = repeated[0] if repeated else name
        raise context.error(
            "experiments", "has a repeated name", value=value, remedy="name each experiment once"
        )
    given = overrides_by_experiment(config_dir, entry.experiments, overrides)
    experiments = tuple(load_experiment(config_dir, e, own) for e, own in given.items())
    first = experiments[0]
    for other in experiments[1:]:
        key = first.dataset.rows_differ(other.dataset)
        if key is not None:
            raise context.error(
                "experiments",
                f"do not share {key}: {other.expid} and {first.expid} differ",
                value=getattr(other.dataset, key),
                remedy="blend experiments on the same rows",
            )
    seed = first.training.seed
    return Recipe(
        name, experiments, entry.folds, entry.fold_method, tuple(range(seed, seed + entry.seeds))
    )
