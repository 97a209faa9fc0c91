"""FuxiCTR's config keys that have another name, no effect or no support in TossCTR."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tossctr.config.messages import ErrorContext


@dataclass(frozen=True)
class Dialect:
    """How to translate FuxiCTR's keys on one level of a config. A key with the value null is
    dropped.

    Attributes:
        renamed: new name by FuxiCTR's name.
        without_effect: accepted keys, with the reason why they do nothing.
        refused: unsupported keys, with a remedy.
        accepted_value: the value of a refused key that TossCTR does support.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    accepted_value: Mapping[str, object] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """All keys that `translate` changes."""
        return {*self.renamed, *self.without_effect, *self.refused}

    def translate(
        self, values: Mapping[str, Any], own: Collection[str], context: ErrorContext
    ) -> tuple[dict[str, Any], list[str]]:
        """Translate the keys of an entry.

        Args:
            values: the entry.
            own: keys of the schema, which stay as they are.
            context: for errors.

        Returns:
            The translated entry, and the keys without effect.

        Raises:
            UserError: an unsupported key, or one given under both of its names.
        """
        translated: dict[str, Any] = {}
        dropped: list[str] = []
        for key, value in values.items():
            if key in own or key not in self.keys:
                translated[key] = value
            elif value is None:
                continue
            elif key in self.renamed:
                new = self.renamed[key]
                if values.get(new) is not None:
                    raise context.error(
                        key, f"is another name of {new}, which is also given", value=value,
                        remedy=f"keep {new} only",
                    )  # fmt: skip
                translated[new] = value
            elif key in self.without_effect:
                dropped.append(key)
            elif key not in self.accepted_value or value != self.accepted_value[key]:
                raise context.error(key, "is not supported", value=value, remedy=self.refused[key])
        return translated, dropped


_STORE = "the store is memory-mapped: there are no blocks or formats to choose"
_JSON = "vocabularies are always written as JSON"
_DEBUG = "there is no debug mode"
_DECLARE = "declare the columns under feature_cols, and unused ones with active: false"

EXPERIMENT = Dialect(
    renamed={
        "patience": "early_stop_patience",
        "workers": "num_workers",
    },
    without_effect={
        "pickle_feature_encoder": _JSON,
        "use_hdf5": _STORE,
        "partition_block_size": _STORE,
        "data_block_size": _STORE,
        "gpu": "choose the device with --gpu",
        "model_id": "the id in this file names the experiment",
        "save_best_only": "the best weights are kept; the newest ones only until training ends",
        "debug_mode": _DEBUG,
        "debug": _DEBUG,
    },
    refused={
        "feature_specs": _DECLARE,
        "feature_config": _DECLARE,
        "use_features": _DECLARE,
        "ordered_features": _DECLARE,
        "every_x_epochs": "give eval_steps, the optimizer steps between two validations",
        "version": "models are PyTorch's: remove the key",
        "task": "models predict clicks, which is binary_classification",
    },
    accepted_value={
        "every_x_epochs": 1,
        "version": "pytorch",
        "task": "binary_classification",
    },
)

DATASET = Dialect(
    without_effect={
        "pickle_feature_encoder": _JSON,
        "use_hdf5": _STORE,
        "partition_block_size": _STORE,
        "data_block_size": _STORE,
    },
    refused={
        "feature_specs": _DECLARE,
        "feature_config": _DECLARE,
        "use_features": _DECLARE,
        "valid_size": "give valid_split: {method: ..., fraction: ...}",
        "test_size": "give a separate file as test_data",
        "split_type": "give valid_split: {method: time, random or stratified}",
    },
)

_PRETRAINED = "embeddings are trained from scratch: remove the key"
_BUCKET = "write the bucket to a column of the file and declare it as categorical"

FEATURE = Dialect(
    renamed={
        "encoder": "feature_encoder",
        "na_value": "fill_na",
        "padding": "truncating",  # sequences are cut, not padded, at the same end
    },
    refused={
        "preprocess": "write the preprocessed value to a column of the file",
        "category_processor": _BUCKET,
        "num_buckets": _BUCKET,
        "pretrained_emb": _PRETRAINED,
        "pretrain_dim": _PRETRAINED,
        "pretrain_usage": _PRETRAINED,
        "freeze_emb": _PRETRAINED,
        "emb_output_dim": "give embedding_dim, the width that the model sees",
    },
)
