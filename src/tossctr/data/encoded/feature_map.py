"""FuxiCTR's `feature_map.json` and `feature_vocab.json`, which describe encoded files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tossctr.artefact import ENCODER_BYTES, read_json
from tossctr.errors import UserError
from tossctr.files import write_json

MAP = "feature_map.json"
VOCAB = "feature_vocab.json"
WITH_VOCABULARY = ("categorical", "sequence")


class FuxiFeature(BaseModel):
    """A feature. `padding_idx` is None for FuxiCTR 1 without padding, where index 0 is OOV; `type`
    may be one that only FuxiCTR (`embedding`) or only TossCTR (`time`) has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    source: str = ""
    feature_encoder: str | list[str] | None = None
    embedding_dim: int | None = None
    emb_output_dim: int | None = None
    share_embedding: str | None = None
    padding_idx: int | None = None
    max_len: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class FuxiMap:
    """FuxiCTR 2's feature map: a data set's features in column order.

    A batch of FuxiCTR is one matrix; `column_index` gives the columns of each feature.
    """

    dataset_id: str
    labels: tuple[str, ...]
    features: Mapping[str, FuxiFeature]

    @classmethod
    def read(cls, path: Path) -> FuxiMap:
        """Read a `feature_map.json` of FuxiCTR 2 (a list of features) or 1 (`feature_specs`).

        Raises:
            UserError: missing, or not such a file.
        """
        content = _read_json(path)
        try:
            listed: Any = content.get("features", content.get("feature_specs"))
            if isinstance(listed, list):
                listed = {name: spec for entry in listed for name, spec in entry.items()}
            features = {
                name: FuxiFeature.model_validate(_renamed(spec)) for name, spec in listed.items()
            }
            labels = content.get(
                "labels", [content["label_name"]] if "label_name" in content else []
            )
            return cls(str(content["dataset_id"]), tuple(map(str, labels)), features)
        except (AttributeError, KeyError, TypeError, ValidationError) as error:
            raise UserError(
                "not a feature map of FuxiCTR", file=path, remedy="build the data set again"
            ) from error

    @property
    def num_fields(self) -> int:
        """Number of features but `meta`, which models do not see."""
        return sum(f.type != "meta" for f in self.features.values())

    @property
    def total_features(self) -> int:
        """Number of embedding rows, counting shared tables once and numeric features as one."""
        return sum(
            1 if f.type == "numeric" else f.vocab_size or 0
            for f in self.features.values()
            if f.type == "numeric" or (f.type in WITH_VOCABULARY and f.share_embedding is None)
        )

    @property
    def column_index(self) -> dict[str, int | list[int]]:
        """The columns of each feature and label in FuxiCTR's matrix of a batch."""
        index: dict[str, int | list[int]] = {}
        at = 0
        for name, feature in self.features.items():
            if feature.max_len is None:
                index[name] = at
                at += 1
            else:
                index[name] = list(range(at, at + feature.max_len))
                at += feature.max_len
        return index | {label: at + i for i, label in enumerate(self.labels)}

    @property
    def input_length(self) -> int:
        """Number of columns of that matrix without labels."""
        return sum(f.max_len or 1 for f in self.features.values())

    def sum_emb_out_dim(self, embedding_dim: int, *, without_time: bool = False) -> int:
        """Total width of all embeddings.

        Args:
            embedding_dim: default of features without one.
            without_time: skip timestamps, which are not embedded in TossCTR.
        """
        return sum(
            f.emb_output_dim or f.embedding_dim or embedding_dim
            for f in self.features.values()
            if f.type != "meta" and not (without_time and f.type == "time")
        )

    def as_dict(self) -> dict[str, Any]:
        """The content of FuxiCTR 2's `feature_map.json`."""
        return {
            "dataset_id": self.dataset_id,
            "num_fields": self.num_fields,
            "total_features": self.total_features,
            "input_length": self.input_length,
            "labels": list(self.labels),
            "features": [
                {name: feature.model_dump(exclude_none=True, exclude=_excluded(feature))}
                for name, feature in self.features.items()
            ],
        }

    def write(self, folder: Path) -> None:
        """Write `feature_map.json`."""
        write_json(folder / MAP, self.as_dict())


def _excluded(feature: FuxiFeature) -> set[str]:
    return {"source"} if feature.type == "meta" else set()


def _renamed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A feature with FuxiCTR 1's `encoder` renamed as in FuxiCTR 2."""
    return {("feature_encoder" if k == "encoder" else k): v for k, v in spec.items()}


def vocabulary_of(folder: Path) -> str:
    """SHA-256 of the feature map and vocabulary in FuxiCTR's `folder`.

    Raises:
        UserError: there is no `feature_map.json`.
    """
    parts = [_read_json(folder / MAP)]
    if (folder / VOCAB).is_file():
        parts.append(_read_json(folder / VOCAB))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            "does not exist, and the indices next to it cannot be interpreted without it",
            file=path,
            remedy="copy it from where the data were made; raw files do not need it",
        )
    # Links are allowed, as for data files.
    content = read_json(path.resolve(), limit=ENCODER_BYTES, remedy="build the data set again")
    if not isinstance(content, dict):
        raise UserError("is not a mapping", file=path, remedy="build the data set again")
    return content
