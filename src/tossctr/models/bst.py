"""BST (Chen et al., DLP-KDD 2019): a Transformer over the history with the target at its end.

    embed                             histories (M - B, d), targets (B, d)
    stack, target last; concatenate the position                 (M, D)
    Transformer, for each pair of fields or group of them        (M, D)
    pool                                                         (B, P)
    MLP on all other fields, the targets and what was pooled     (B,)

Differs from FuxiCTR: events are packed, so `concat` pools zeros, not padding's own vectors.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tossctr.config.schema import HiddenUnits, ModelConfig, Width
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.fields import (
    COLUMNS,
    SEQUENCES,
    Activations,
    Groups,
    check_fields,
    check_groups,
    check_heads,
    check_histories,
    check_pairs,
    longest_history,
)
from tossctr.models.layers.embedding import FieldEmbedding, sinusoidal_table
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.packed import append_target, with_target
from tossctr.models.layers.pooling import PoolingName, pool
from tossctr.models.layers.transformer import Transformer


class BSTConfig(ModelConfig):
    """FuxiCTR's option names. Pair i of `bst_target_field` and `bst_sequence_field` is one
    Transformer; a group of fields in both is one sequence of wider events."""

    bst_target_field: Groups
    bst_sequence_field: Groups
    seq_pooling_type: PoolingName = "mean"
    use_position_emb: bool = True
    use_causal_mask: bool = False
    num_heads: Width = 2
    stacked_transformer_layers: int = Field(1, ge=1)
    layer_norm: bool = True
    use_residual: bool = True
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    net_dropout: float = Field(0.0, ge=0, lt=1)
    dnn_hidden_units: HiddenUnits = (256, 128, 64)
    dnn_activations: Activations = "relu"
    batch_norm: bool = False

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_groups(self.bst_target_field, self.bst_sequence_field, "bst_target_field")
        return self


class BST(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair, heads that do not divide, a missing `max_len`.
    """

    Config = BSTConfig
    config: BSTConfig

    def __init__(self, features: FeatureMap, config: BSTConfig) -> None:
        super().__init__(features, config)
        c = config
        self.pairs = tuple(zip(c.bst_target_field, c.bst_sequence_field, strict=True))
        self.columns = features.names(*COLUMNS)
        for targets, sequences in self.pairs:
            check_fields(features, "bst_target_field", targets, COLUMNS)
            check_fields(features, "bst_sequence_field", sequences, SEQUENCES)
        histories = [name for _, sequences in self.pairs for name in sequences]
        self.embedding = FieldEmbedding(
            features, (*self.columns, *histories), c.embedding_dim, numeric=c.numeric_embedding
        )
        positions, concat = c.use_position_emb, c.seq_pooling_type == "concat"
        needs = "use_position_emb" if positions else "concat pooling" if concat else None
        self.max_lens = [longest_history(features, s, needs) for s in c.bst_sequence_field]
        self.positions, self.transformers = nn.ModuleList(), nn.ModuleList()
        pooled = 0
        for (targets, sequences), max_len in zip(self.pairs, self.max_lens, strict=True):
            check_pairs(self.embedding, targets, sequences, "bst_target_field")
            width = sum(self.embedding.widths(sequences)) + positions * c.embedding_dim
            check_heads(width, c.num_heads)
            slots = (max_len or 0) + 1  # with the target
            if positions:
                self.positions.append(sinusoidal_table(slots, c.embedding_dim))
            self.transformers.append(
                Transformer(
                    width,
                    c.num_heads,
                    c.stacked_transformer_layers,
                    attention_dropout=c.attention_dropout,
                    net_dropout=c.net_dropout,
                    causal=c.use_causal_mask,
                    layer_norm=c.layer_norm,
                    use_residual=c.use_residual,
                )
            )
            pooled += slots * width if concat else width
        self.dnn = MLP(
            sum(self.embedding.widths(self.columns)) + pooled,
            c.dnn_hidden_units,
            output_width=1,
            activations=c.dnn_activations,
            dropout=c.net_dropout,
            batch_norm=c.batch_norm,
        )
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        parts = [self.embedding.rows(batch, self.columns)]
        for i, (targets, sequences) in enumerate(self.pairs):
            check_histories(batch, sequences, self.max_lens[i])
            events = with_target(batch.sequences[sequences[0]])
            x = append_target(
                self.embedding.events(batch, sequences), self.embedding.rows(batch, targets), events
            )
            if self.config.use_position_emb:
                x = torch.cat([x, self.positions[i](events.age)], dim=1)
            x = self.transformers[i](x, events)
            slots = (self.max_lens[i] or 0) + 1
            parts.append(pool(self.config.seq_pooling_type, x, events, slots))
        logits: Tensor = self.dnn(torch.cat(parts, dim=1)).squeeze(1)
        return logits
