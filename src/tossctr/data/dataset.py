"""Read an entry of dataset_config.yaml, with all checks that need no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tossctr.config import fuxictr
from tossctr.config.entries import absolute, own_keys, read_entry
from tossctr.config.messages import ErrorContext, suggestion, validated
from tossctr.config.overrides import Override, apply_overrides
from tossctr.config.schema import DatasetConfig, FeatureConfig
from tossctr.data.sources.registry import FORMATS, format_of
from tossctr.location import located

DATASET_KEYS = frozenset(DatasetConfig.model_fields) - {"dataset_id", "vocabulary"}
_PATHS = ("data_root", "train_data", "valid_data", "test_data", "sample_submission")


def read_dataset(config_dir: Path, dataset_id: str, overrides: Sequence[Override]) -> DatasetConfig:
    """Read and check a data set; all `overrides` have keys of data sets.

    Raises:
        UserError: the config is invalid; names file, key and value.
    """
    file, values, _ = read_entry(config_dir, "dataset_config", dataset_id)
    context = ErrorContext(file, dataset_id, frozenset(o.path[0] for o in overrides))
    values = apply_overrides(values, overrides, context)
    values = own_keys(values, fuxictr.DATASET, DATASET_KEYS, context)
    if "feature_cols" in values:
        values["feature_cols"] = _features(values["feature_cols"], context)
    if _is_encoded(values) and values.get("train_data") is not None:
        # Imported here, as it imports pyarrow.
        from tossctr.data.encoded.dataset import completed

        train = absolute(located(str(values["train_data"])), config_dir)
        values = completed(values, train, context)
    dataset = validated(DatasetConfig, {**values, "dataset_id": dataset_id}, context)
    _check_features(dataset, context)
    _check_format(dataset, context)
    paths = {key: getattr(dataset, key) for key in _PATHS}
    return dataset.model_copy(
        update={k: absolute(v, config_dir) for k, v in paths.items() if v is not None}
    )


def _is_encoded(values: Mapping[str, Any]) -> bool:
    """Whether the files hold indices: all H5 files do, others with `rebuild_dataset: false`."""
    if values.get("rebuild_dataset") is False:
        return True
    keys = (values.get("data_format"), format_of(str(values.get("train_data"))))
    return any(key in FORMATS and FORMATS[key].encoded for key in keys)


def _check_format(dataset: DatasetConfig, context: ErrorContext) -> None:
    """Check `data_format` against the names of files; folders are checked when they are read."""
    known = dataset.data_format
    if known is not None and known not in FORMATS:
        raise context.error(
            "data_format", "is not a known format", value=known, remedy=suggestion(known, FORMATS)
        )
    for key in ("train_data", "valid_data", "test_data"):
        path = getattr(dataset, key)
        form = None if path is None else format_of(path)
        if form is not None and known not in (None, form):
            raise context.error(
                "data_format",
                f"is {known}, but {key} is {form} by its name",
                value=str(path),
                remedy="correct one of the two, or leave data_format out",
            )


def _features(entries: Any, context: ErrorContext) -> list[FeatureConfig]:
    """The features of `feature_cols`; an entry with a list of names is one feature per name."""
    if not isinstance(entries, list):
        raise context.error("feature_cols", "must be a list of features", value=entries)
    features: list[FeatureConfig] = []
    for index, entry in enumerate(entries):
        inside = context.inside(f"feature_cols[{index}]")
        if not isinstance(entry, Mapping):
            raise inside.error("", "must be a mapping of keys to values", value=entry)
        names = entry.get("name")
        for name in names if isinstance(names, list) else [names]:
            if name is not None:
                inside = context.inside(f"feature_cols[{name}]")
            spec = {**entry, "name": name} if name is not None else entry
            translated, _ = fuxictr.FEATURE.translate(spec, FeatureConfig.model_fields, inside)
            features.append(validated(FeatureConfig, translated, inside))
    return features


def _check_features(dataset: DatasetConfig, context: ErrorContext) -> None:
    features: dict[str, FeatureConfig] = {}
    for feature in dataset.features:
        if feature.name in features:
            raise context.error(
                "feature_cols",
                "names a feature twice",
                value=feature.name,
                remedy="remove one of the two, or set active: false on it",
            )
        features[feature.name] = feature
    if dataset.label_col.name in features:
        raise context.error(
            f"feature_cols[{dataset.label_col.name}]",
            "is the label",
            remedy="a model must not see the label: remove the feature",
        )
    for feature in features.values():
        target = feature.share_embedding
        if target is None:
            continue
        key = f"feature_cols[{feature.name}].share_embedding"
        others = features.keys() - {feature.name}
        if target not in others:
            raise context.error(
                key, "names no other feature", value=target, remedy=suggestion(target, others)
            )
        end = features[target].share_embedding
        if end is not None:
            raise context.error(
                key,
                f"names a feature that itself shares {end}",
                value=target,
                remedy=f"share {end}" if end != feature.name else "remove it from one of the two",
            )
