"""A data set of encoded files: its features as `feature_map.json` has them.

Encoded are H5 files, and with FuxiCTR's `rebuild_dataset: false` Parquet files. The feature map
completes the config, and what comes out is an ordinary data set whose categories are indices
already (`remap: false`).
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
# What the config may choose of a feature that is encoded already.
_CHOSEN = ("active", "source", "max_len", "truncating", "embedding_dim", "feature_encoder")


def completed(
    values: Mapping[str, Any], train_data: Location, context: ErrorContext
) -> dict[str, Any]:
    """A data set's config with features, label and vocabulary of the map beside `train_data`.

    Features that the config declares are those used, in its order; without any, all of the map.

    Raises:
        UserError: no map, or a feature that is not in it, of another type there, or of a type
            without counterpart; a URL.
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
    """What the map says of a declared feature, with what the config chooses of it."""
    key = f"feature_cols[{spec.name}]"
    feature = fuxi.features.get(spec.name)
    if feature is None:
        if not spec.active:
            return spec
        if spec.type == "time" or (spec.type == "sequence" and spec.dtype == "float"):
            # FuxiCTR has no such features, but our own files hold them, scaled already.
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
            f"has no counterpart here (in {MAP})",
            value=feature.type,
            remedy="declare the features to use under feature_cols, and leave it out",
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
