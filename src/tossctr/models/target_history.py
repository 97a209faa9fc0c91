"""Base of the models of a target and its history: BST, DIN, SASRec and DCNv2Seq."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tossctr.config.names import Groups
from tossctr.config.schema import ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.fields import COLUMNS, SEQUENCES, check_fields, check_histories, check_pairs
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.packed import Events, append_target, with_target


class TargetHistoryModel(CTRModel):
    """Embeds all columns, and sequences in groups that belong to groups of target fields.

    A subclass that calls `score` assigns `dnn`.

    Args:
        features: the fields, with the lengths chosen for training.
        config: an instance of the class's `Config`.
        targets: groups of target fields.
        sequences: for each of them, the group of sequence fields that it continues.
        prefix: of the option names `target_field` and `sequence_field`, for messages.
        paired: target field i must be as wide as sequence field i of its group.

    Raises:
        UserError: fields that are unknown, of another type, or differ in width from their pair.
    """

    dnn: MLP

    def __init__(
        self,
        features: FeatureMap,
        config: ModelConfig,
        targets: Groups,
        sequences: Groups,
        prefix: str = "",
        paired: bool = True,
    ) -> None:
        super().__init__(features, config)
        option = f"{prefix}target_field"
        self.pairs = tuple(zip(targets, sequences, strict=True))
        self.columns = features.names(*COLUMNS)
        for target, sequence in self.pairs:
            check_fields(features, option, target, COLUMNS)
            check_fields(features, f"{prefix}sequence_field", sequence, SEQUENCES)
        histories = [name for _, sequence in self.pairs for name in sequence]
        self.embedding = FieldEmbedding(
            features,
            (*self.columns, *histories),
            config.embedding_dim,
            numeric=config.numeric_embedding,
        )
        for target, sequence in self.pairs:
            if paired:
                check_pairs(self.embedding, target, sequence, option)

    def width(self, names: Sequence[str]) -> int:
        """The width of the named fields' embeddings side by side."""
        return sum(self.embedding.widths(names))

    def target_last(self, batch: Batch, pair: int, max_len: int | None) -> tuple[Tensor, Events]:
        """Each row's history followed by its target, for one pair: packed (M, width)."""
        target, sequence = self.pairs[pair]
        check_histories(batch, sequence, max_len)
        events = with_target(batch.sequences[sequence[0]])
        history = self.embedding.events(batch, sequence)
        return append_target(history, self.embedding.rows(batch, target), events), events

    def score(self, parts: list[Tensor]) -> Tensor:
        """Logits (B,): the MLP's output for vectors (B, ...) side by side."""
        logits: Tensor = self.dnn(torch.cat(parts, dim=1)).squeeze(1)
        return logits
