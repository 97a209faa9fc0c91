"""The registry of model families: everything that `model:` in the YAML can name.

A family is imported when one of its models is looked up, the lightest first: torch and LightGBM
take seconds to import, and most commands need one of them at most.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tossctr.config.schema import ModelConfig
    from tossctr.training.family import Family


def _trees() -> Family:
    from tossctr.trees.family import Trees

    return Trees()


def _networks() -> Family:
    from tossctr.training.networks import Networks

    return Networks()


FAMILIES: dict[str, Callable[[], Family]] = {"trees": cache(_trees), "networks": cache(_networks)}


def family_of(model: str) -> Family:
    """The family of a model.

    Args:
        model: its name in the YAML.

    Raises:
        KeyError: no family has such a model.
    """
    for family in FAMILIES.values():
        if model in family().models:
            return family()
    raise KeyError(model)


def known_models() -> list[str]:
    """The names of all models."""
    return [name for family in FAMILIES.values() for name in family().models]


def config_class_of(model: str) -> type[ModelConfig]:
    """The config class of a model.

    Raises:
        KeyError: no family has such a model.
    """
    return family_of(model).models[model]
