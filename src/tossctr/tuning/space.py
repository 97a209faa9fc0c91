"""The search space: YAML that maps keys of the experiment to a range or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tossctr.config.messages import ErrorContext, suggestion, validated
from tossctr.config.schema import Experiment
from tossctr.config.yaml_file import read_mapping
from tossctr.errors import UserError


class Dimension(BaseModel):
    """`{low: 1.e-4, high: 1.e-2, log: true}` or `{choices: [...]}`; a range of integers if both
    ends are integers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give low and high, or choices")
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError("low is above high")
            if self.log and self.low <= 0:
                raise ValueError("log needs low above 0")
        return self

    def stored(self, value: Any) -> Any | None:
        """A value in the form that Optuna stores; None if it is outside this dimension."""
        if self.choices is not None:
            flag = isinstance(value, bool)  # 1 == True in Python
            same = [c for c in self.choices if c == value and isinstance(c, bool) == flag]
            return _as_text(same[0]) if same else None
        if self.low is None or self.high is None or type(value) not in (int, float):
            return None
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        if not self.low <= value <= self.high or (whole and type(value) is not int):
            return None
        return value if whole else float(value)

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Draw the trial's value of `key`."""
        if self.low is None or self.high is None:
            texts = list(map(_as_text, self.choices or ()))
            return json.loads(trial.suggest_categorical(key, texts))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


def _as_text(choice: Any) -> str:
    """A choice as JSON text: Optuna stores numbers and strings, but no lists."""
    return json.dumps(choice, sort_keys=True)


def read_space(file: Path, experiment: Experiment) -> dict[str, Dimension]:
    """Read a search space for an experiment.

    Raises:
        UserError: the file is missing or empty, a key is unknown, or a range is invalid.
    """
    options = type(experiment.hyperparameters)
    known = {*type(experiment.training).model_fields, *options.model_fields}
    known -= {*options.without_effect}
    space = {}
    for key, value in read_mapping(file).items():
        if key.split(".")[0] not in known - {"seed", "model_root"}:
            raise UserError(
                f"{key} is not a tunable key of {experiment.model}",
                file=file,
                remedy=suggestion(key, known),
            )
        space[key] = validated(Dimension, value, ErrorContext(file, key))
    if not space:
        raise UserError("the search space is empty", file=file)
    return space


def values_of(experiment: Experiment, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The experiment's own values of the keys in the search space; None for a key that it lacks."""
    content: dict[str, Any] = {
        **experiment.training.model_dump(mode="json"),
        **experiment.hyperparameters.model_dump(mode="json"),
    }
    found = {}
    for key in space:
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[key] = value
    return found


def as_overrides(chosen: Mapping[str, Any]) -> list[str]:
    """Values as arguments of `--set`."""
    return [f"{key}={json.dumps(value)}" for key, value in chosen.items()]


def chosen_values(trial: FrozenTrial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The values drawn for a trial, by key."""
    return {
        key: json.loads(value) if space[key].choices is not None else value
        for key, value in trial.params.items()
    }
