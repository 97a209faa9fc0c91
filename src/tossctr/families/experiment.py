"""From FuxiCTR's two YAML files and `--set` to an `Experiment`; to a run's JSON and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tossctr.artefact import read_json
from tossctr.config import fuxictr
from tossctr.config.entries import absolute, own_keys, read_entry
from tossctr.config.messages import ErrorContext, suggestion, validated
from tossctr.config.overrides import Override, apply_overrides
from tossctr.config.schema import DatasetConfig, Experiment, ModelConfig, TrainingConfig
from tossctr.data.dataset import DATASET_KEYS, read_dataset
from tossctr.errors import UserError
from tossctr.families.registry import config_class_of, known_models
from tossctr.files import write_json

_VERSION = 2  # of the JSON that `save_experiment` writes
_IDENTITY = {"model", "dataset_id"}


def load_experiment(config_dir: Path, expid: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read one experiment and its data set.

    Args:
        config_dir: the folder of model_config.yaml and dataset_config.yaml (or of folders
            model_config/ and dataset_config/ with several such files). Paths in them are taken
            from the folder above it, the project's root.
        expid: an id in model_config.yaml; `Base` there holds defaults for all.
        overrides: `key=value` as given to `--set`: a key of the experiment, else of the data set,
            dotted where nested; the value is YAML.

    Raises:
        UserError: anything wrong with files or values, naming file, key and value found.
    """
    given = [Override.parse(text) for text in overrides]
    file, values, own_of_entry = read_entry(config_dir, "model_config", expid)
    context = ErrorContext(file, expid, frozenset(o.path[0] for o in given))

    # Which keys an experiment has depends on its model, so that is settled first.
    identity = [o for o in given if o.path[0] in _IDENTITY]
    values = apply_overrides(values, identity, context)
    model, dataset_id = _text(values, "model", context), _text(values, "dataset_id", context)
    config_class = _config_class(model, context)
    own = _IDENTITY | TrainingConfig.model_fields.keys() | config_class.model_fields.keys()

    for_experiment = [o for o in given if o.path[0] in own | fuxictr.EXPERIMENT.keys]
    for_dataset = [o for o in given if o not in for_experiment]
    for override in for_dataset:
        override.refuse_unknown(own | DATASET_KEYS, fuxictr.DATASET.keys)

    values = apply_overrides(values, for_experiment, context)
    for key in values.keys() & DATASET_KEYS - own:
        raise context.error(
            key, "belongs to a data set", remedy=f"move it to {dataset_id} in dataset_config.yaml"
        )
    values = own_keys(values, fuxictr.EXPERIMENT, own, context)
    values = _effective(values, config_class, model, own_of_entry | context.overridden, context)
    dataset = read_dataset(config_dir, dataset_id, for_dataset)
    if values.get("group_id") is None:
        values["group_id"] = dataset.group_id
    training = validated(TrainingConfig, _only(values, TrainingConfig), context)
    dataset = dataset.model_copy(update={"group_id": training.group_id})
    model_root = absolute(training.model_root, config_dir)
    _check_group(training, dataset, context)
    hyperparameters = validated(config_class, _only(values, config_class), context)
    shared = TrainingConfig.model_fields.keys() & config_class.model_fields.keys()
    chosen = {key: getattr(hyperparameters, key) for key in shared} | {"model_root": model_root}
    return Experiment(
        expid=expid,
        model=model,
        dataset=dataset,
        training=training.model_copy(update=chosen),
        hyperparameters=hyperparameters,
    )


def overrides_by_experiment(
    config_dir: Path, expids: Sequence[str], overrides: Sequence[str]
) -> dict[str, list[str]]:
    """For each of several experiments, those of the overrides whose keys its model has.

    One that none of them has goes to all: loading them says what is wrong with it.

    Raises:
        UserError: no such experiment, or an override that is not `key=value`.
    """
    given = [Override.parse(text) for text in overrides]
    known = {expid: _known(config_dir, expid, given) for expid in expids}
    anywhere = frozenset().union(*known.values())
    return {
        expid: [o.written for o in given if o.path[0] in keys or o.path[0] not in anywhere]
        for expid, keys in known.items()
    }


def _known(config_dir: Path, expid: str, overrides: Sequence[Override]) -> frozenset[str]:
    """The keys that can be overridden in an experiment."""
    file, values, _ = read_entry(config_dir, "model_config", expid)
    context = ErrorContext(file, expid)
    values = apply_overrides(values, [o for o in overrides if o.path[0] in _IDENTITY], context)
    config_class = _config_class(_text(values, "model", context), context)
    own = {*TrainingConfig.model_fields, *config_class.model_fields}
    legacy = fuxictr.EXPERIMENT.keys | fuxictr.DATASET.keys
    return frozenset({*_IDENTITY, *own, *DATASET_KEYS, *legacy} - {*config_class.without_effect})


def load_dataset(config_dir: Path, dataset_id: str, overrides: Sequence[str] = ()) -> DatasetConfig:
    """Read one data set; arguments and errors as in `load_experiment`.

    That the data files exist is checked by who reads them.
    """
    given = [Override.parse(text) for text in overrides]
    for override in given:
        override.refuse_unknown(DATASET_KEYS, fuxictr.DATASET.keys)
    return read_dataset(config_dir, dataset_id, given)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write the resolved config as JSON."""
    content = experiment.model_dump(mode="json", serialize_as_any=True)
    write_json(path, {"version": _VERSION, **content})


def read_experiment(path: Path) -> Experiment:
    """Read what `save_experiment` wrote.

    Raises:
        UserError: missing, not such a file, or of another version.
    """
    content = read_json(path, remedy="train again")
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        raise UserError(
            f"is not an experiment of version {_VERSION}", file=path, remedy="train again"
        )
    context = ErrorContext(path, "experiment")
    config_class = _config_class(_text(content, "model", context), context)
    hyperparameters = validated(
        config_class, content.pop("hyperparameters", None), context.inside("hyperparameters")
    )
    return validated(Experiment, {**content, "hyperparameters": hyperparameters}, context)


def _effective(
    values: Mapping[str, Any],
    config_class: type[ModelConfig],
    model: str,
    given: Collection[str],
    context: ErrorContext,
) -> dict[str, Any]:
    """`values` without the keys of `Base` that the model has no use for, or its own default of.

    Raises:
        UserError: the experiment itself gives such a key.
    """
    fuxictr_names = {new: old for old, new in fuxictr.EXPERIMENT.renamed.items()}
    for key, instead in config_class.without_effect.items():
        found = {key, fuxictr_names.get(key, key)} & set(given)
        if found and values.get(key) is not None:
            raise context.error(
                found.pop(), f"does not apply to {model}", value=values[key],
                remedy="remove it" if instead is None else f"give {instead}",
            )  # fmt: skip
    own_default = TrainingConfig.model_fields.keys() & config_class.model_fields.keys()
    left_out = {*config_class.without_effect, *(own_default - set(given))}
    return {key: value for key, value in values.items() if key not in left_out}


def _only(values: Mapping[str, Any], model: type[TrainingConfig | ModelConfig]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in model.model_fields}


def _text(values: Mapping[str, Any], key: str, context: ErrorContext) -> str:
    value = values.get(key)
    if value is None:
        raise context.error(key, "is missing", remedy="add it")
    if not isinstance(value, str):
        raise context.error(key, "must be text", value=value, remedy="put it in quotes")
    return value


def _config_class(model: str, context: ErrorContext) -> type[ModelConfig]:
    try:
        return config_class_of(model)
    except KeyError as error:
        raise context.error(
            "model", "is not a known model", value=model, remedy=suggestion(model, known_models())
        ) from error


def _check_group(training: TrainingConfig, dataset: DatasetConfig, context: ErrorContext) -> None:
    kinds = {feature.name: feature.type for feature in dataset.features}
    name = training.group_id
    if name is not None and kinds.get(name) not in ("meta", "categorical"):
        candidates = [n for n, kind in kinds.items() if kind in ("meta", "categorical")]
        raise context.error(
            "group_id",
            "is not a feature of type meta or categorical",
            value=name,
            remedy=suggestion(name, candidates, otherwise="declare it with type: meta"),
        )
