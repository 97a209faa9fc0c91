"""Complete the config of a data set of encoded files from `feature_map.json`.

H5 files are encoded, and other files with FuxiCTR's `rebuild_dataset: false`. The result is an
ordinary data set whose categories are indices already (`remap: false`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tossctr.config.messages import ErrorContext, suggestion, validated
from tossctr.config.schema import FeatureConfig
from tossctr.data.encoded.feature_map import MAP, FuxiFeature, FuxiMap
from tossctr.data.encoded.source import vocab_size
from tossctr.data.sources.opening import open_source
from tossctr.location import Location

_DTYPES = {"categorical": "int", "sequence": "int", "meta": "int", "numeric": "float"}
# Keys of an encoded feature that the config may set.
_CHOSEN = ("active", "source", "max_len", "truncating", "embedding_dim", "feature_encoder")


def completed(
    values: Mapping[str, Any], train_data: Location, context: ErrorContext
) -> dict[str, Any]:
    """Add features, label and vocabulary of the map next to `train_data` to a data set's config.

    The features declared in the config are used, in its order; without any, all of the map.

    Raises:
        UserError: no map, a feature that is missing there or has another or an unsupported type, or
            a URL.
    """
    if not isinstance(train_data, Path):
        raise context.error(
            "train_data", "indices in an object store are not read", remedy="copy them here"
        )
    fuxi = FuxiMap.read(train_data.parent / MAP)
    declared: list[FeatureConfig] = values.get("feature_cols") or []
    if declared:
        features = [_declared(spec, fuxi, context) for spec in declared]
    else:
        features = [_of_map(name, feature, context) for name, feature in fuxi.features.items()]
    label = {"label_col": {"name": fuxi.labels[0]}} if fuxi.labels else {}
    return {
        **label,
        **values,
        "feature_cols": features,
        "vocabulary": open_source(train_data, encoded=True).vocabulary,
    }


def _declared(spec: FeatureConfig, fuxi: FuxiMap, context: ErrorContext) -> FeatureConfig:
    """A declared feature: the map's entry with the config's choices."""
    key = f"feature_cols[{spec.name}]"
    feature = fuxi.features.get(spec.name)
    if feature is None:
        if not spec.active:
            return spec
        if spec.type == "time" or (spec.type == "sequence" and spec.dtype == "float"):
            # FuxiCTR has no such features, but exported files contain them, already scaled.
            return spec.model_copy(update={"normalizer": None, "fill_na": None})
        raise context.error(key, f"is not in {MAP}", remedy=suggestion(spec.name, fuxi.features))
    if spec.type != feature.type:
        raise context.error(
            f"{key}.type", f"is {feature.type} in {MAP}", value=spec.type, remedy="correct it"
        )
    chosen = {name: getattr(spec, name) for name in _CHOSEN if name in spec.model_fields_set}
    return _of_map(spec.name, feature, context).model_copy(update=chosen)


def _of_map(name: str, feature: FuxiFeature, context: ErrorContext) -> FeatureConfig:
    if feature.type not in _DTYPES:
        raise context.error(
            f"feature_cols[{name}].type",
            f"is not supported (in {MAP})",
            value=feature.type,
            remedy="declare the features to use under feature_cols, without it",
        )
    spec: dict[str, Any] = {
        "name": name,
        "type": feature.type,
        "dtype": _DTYPES[feature.type],
        "source": feature.source,
        "embedding_dim": feature.embedding_dim,
    }
    if isinstance(feature.feature_encoder, str):
        spec["feature_encoder"] = feature.feature_encoder
    if feature.type in ("categorical", "sequence"):
        spec |= {
            "remap": False,
            "vocab_size": vocab_size(feature),
            "share_embedding": feature.share_embedding,
            "max_len": feature.max_len,
        }
    return validated(FeatureConfig, spec, context.inside(f"feature_cols[{name}]"))
