"""BST (Chen et al., DLP-KDD 2019): a Transformer over the history and the target.

    embed                             histories (M - B, d), targets (B, d)
    append the target; concatenate the position                  (M, D)
    Transformer, for each pair of fields or group of them        (M, D)
    pool                                                         (B, P)
    MLP on all columns and the pooled vectors                    (B,)

Differs from FuxiCTR: events are packed, so `concat` fills unused slots with zeros instead of the
vectors of padding.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from tossctr.config.names import Groups
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.fields import check_groups, max_len_of
from tossctr.models.layers.embedding import sinusoidal_table
from tossctr.models.layers.pooling import POOLINGS
from tossctr.models.options import TransformerOptions
from tossctr.models.target_history import TargetHistoryModel


class BSTConfig(TransformerOptions):
    """FuxiCTR's option names. Each pair of `bst_target_field` and `bst_sequence_field` has its own
    Transformer; a pair of groups of fields is one sequence of wider events."""

    bst_target_field: Groups
    bst_sequence_field: Groups
    use_position_emb: bool = True

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_groups(self.bst_target_field, self.bst_sequence_field, "bst_target_field")
        return self


class BST(TargetHistoryModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair, heads that do not divide, a missing `max_len`.
    """

    Config = BSTConfig
    config: BSTConfig

    def __init__(self, features: FeatureMap, config: BSTConfig) -> None:
        c = config
        super().__init__(features, c, c.bst_target_field, c.bst_sequence_field, prefix="bst_")
        pooling = POOLINGS[c.seq_pooling_type]
        needed_by = "use_position_emb" if c.use_position_emb else c.pooling_needing_max_len
        self.max_lens: list[int | None] = []
        self.positions, self.transformers = nn.ModuleList(), nn.ModuleList()
        self.poolings = nn.ModuleList()
        pooled_width = 0
        for _, sequences in self.pairs:
            max_len = max_len_of(features, sequences, needed_by)
            slots = (max_len or 0) + 1  # with the target
            width = self.width(sequences)
            if c.use_position_emb:
                self.positions.append(sinusoidal_table(slots, c.embedding_dim))
                width += c.embedding_dim
            self.max_lens.append(max_len)
            self.transformers.append(c.transformer(width))
            self.poolings.append(pooling(width, slots))
            pooled_width += pooling(width, slots).output_width
        self.dnn = c.dnn(self.width(self.columns) + pooled_width)
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        parts = [self.embedding.rows(batch, self.columns)]
        for i, max_len in enumerate(self.max_lens):
            x, events = self.target_last(batch, i, max_len)
            if self.config.use_position_emb:
                x = torch.cat([x, self.positions[i](events.age)], dim=1)
            x = self.transformers[i](x, events)
            parts.append(self.poolings[i](x, events))
        return self.score(parts)
