"""FuxiCTR's keys that TossCTR spells differently, has no use for, or cannot honour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tossctr.config.messages import Place


@dataclass(frozen=True)
class Dialect:
    """What becomes of the keys of one level that are not the schema's own.

    A key that is null says nothing and is dropped, whichever table it is in.

    Attributes:
        renamed: same meaning, another name here.
        without_effect: accepted; the text says why there is nothing to do.
        refused: asks for something that is not done; the text says what to do instead.
        accepted_value: of a refused key, the value that asks for what is done anyway.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    accepted_value: Mapping[str, object] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """Every key that `translate` deals with."""
        return {*self.renamed, *self.without_effect, *self.refused}

    def translate(
        self, values: Mapping[str, Any], own: Collection[str], place: Place
    ) -> tuple[dict[str, Any], list[str]]:
        """`values` in our own keys, and the keys dropped that deserve a notice.

        `own` are the schema's keys, which go through as they are.

        Raises:
            UserError: a key that cannot be honoured, or one given under both of its names.
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
                    raise place.error(
                        key, f"is another name of {new}, which is also given", value=value,
                        remedy=f"keep {new} only",
                    )  # fmt: skip
                translated[new] = value
            elif key in self.without_effect:
                dropped.append(key)
            elif key not in self.accepted_value or value != self.accepted_value[key]:
                raise place.error(
                    key, "has no counterpart here", value=value, remedy=self.refused[key]
                )
        return translated, dropped


_STORE = "the store is memory-mapped: there are no blocks or formats to choose"
_JSON = "vocabularies are always written as JSON"
_DEBUG = "every run is checked alike"
_DECLARE = "declare the columns under feature_cols, with active: false for those to leave out"

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
        "gpu": "the device is chosen with --gpu",
        "model_id": "an experiment is known by its id in this file",
        "save_best_only": "the best weights are kept, and the newest in checkpoints until the end",
        "debug_mode": _DEBUG,
        "debug": _DEBUG,
    },
    refused={
        "feature_specs": _DECLARE,
        "feature_config": _DECLARE,
        "use_features": _DECLARE,
        "ordered_features": _DECLARE,
        "every_x_epochs": "give eval_steps, the optimiser steps between two validations",
        "version": "models here are PyTorch's: remove the key",
        "task": "models here predict clicks, which is binary_classification",
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
        "test_size": "give a file of its own as test_data",
        "split_type": "give valid_split: {method: time, random or stratified}",
    },
)

_PRETRAINED = "embeddings are learnt from the data: remove the key"
_BUCKET = "write the bucket into a column of the file and declare it as categorical"

FEATURE = Dialect(
    renamed={
        "encoder": "feature_encoder",
        "na_value": "fill_na",
        "padding": "truncating",  # ragged sequences need no padding; FuxiCTR cuts at the same end
    },
    refused={
        "preprocess": "write the wanted value into a column of the file",
        "category_processor": _BUCKET,
        "num_buckets": _BUCKET,
        "pretrained_emb": _PRETRAINED,
        "pretrain_dim": _PRETRAINED,
        "pretrain_usage": _PRETRAINED,
        "freeze_emb": _PRETRAINED,
        "emb_output_dim": "give embedding_dim, the width that the model sees",
    },
)
