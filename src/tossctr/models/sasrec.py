"""SASRec-style target attention (Kang & McAuley, ICDM 2018), made a click model.

    embed                             histories (M - B, D), targets (B, D), other fields
    stack, target last; add the position                              (M, D)
    causal Transformer: each event sees itself and earlier ones       (M, D)
    pool, by default the target's own output                          (B, D)
    MLP on the fields that are not targets and what was pooled        (B,)

Differs from the paper, which ranks next items: the candidate stands at the end of its history and
an MLP scores it. Differs from FuxiCTR's descendant: causal unless told otherwise, as in the paper.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tossctr.config.schema import HiddenUnits, ModelConfig, Width
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.fields import (
    COLUMNS,
    SEQUENCES,
    Activations,
    Names,
    check_fields,
    check_groups,
    check_heads,
    check_histories,
    check_pairs,
    longest_history,
)
from tossctr.models.layers.embedding import FieldEmbedding, new_table
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.packed import append_target, with_target
from tossctr.models.layers.pooling import PoolingName, pool
from tossctr.models.layers.transformer import Transformer


class SASRecConfig(ModelConfig):
    """FuxiCTR's option names. Field i of `target_field` follows field i of `sequence_field`."""

    target_field: Names
    sequence_field: Names
    seq_pooling_type: PoolingName = "target"
    use_causal_mask: bool = True
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
        check_groups((self.target_field,), (self.sequence_field,), "target_field")
        return self


class SASRec(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair, heads that do not divide, a missing `max_len`.
    """

    Config = SASRecConfig
    config: SASRecConfig

    def __init__(self, features: FeatureMap, config: SASRecConfig) -> None:
        super().__init__(features, config)
        c = config
        check_fields(features, "target_field", c.target_field, COLUMNS)
        check_fields(features, "sequence_field", c.sequence_field, SEQUENCES)
        columns = features.names(*COLUMNS)
        self.head_field = tuple(name for name in columns if name not in c.target_field)
        self.embedding = FieldEmbedding(
            features, (*columns, *c.sequence_field), c.embedding_dim, numeric=c.numeric_embedding
        )
        check_pairs(self.embedding, c.target_field, c.sequence_field, "target_field")
        width = sum(self.embedding.widths(c.sequence_field))
        check_heads(width, c.num_heads)
        self.max_len = longest_history(features, c.sequence_field, "SASRec's position table")
        assert self.max_len is not None
        self.position = new_table(self.max_len + 1, width)
        self.transformer = Transformer(
            width,
            c.num_heads,
            c.stacked_transformer_layers,
            attention_dropout=c.attention_dropout,
            net_dropout=c.net_dropout,
            causal=c.use_causal_mask,
            layer_norm=c.layer_norm,
            use_residual=c.use_residual,
        )
        slots = self.max_len + 1 if c.seq_pooling_type == "concat" else 1
        self.dnn = MLP(
            sum(self.embedding.widths(self.head_field)) + slots * width,
            c.dnn_hidden_units,
            output_width=1,
            activations=c.dnn_activations,
            dropout=c.net_dropout,
            batch_norm=c.batch_norm,
        )
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        c, embedding = self.config, self.embedding
        check_histories(batch, c.sequence_field, self.max_len)
        events = with_target(batch.sequences[c.sequence_field[0]])
        x = append_target(
            embedding.events(batch, c.sequence_field), embedding.rows(batch, c.target_field), events
        )
        x = self.transformer(x + self.position(events.age), events)
        pooled = pool(c.seq_pooling_type, x, events, self.position.num_embeddings)
        head = torch.cat([embedding.rows(batch, self.head_field), pooled], dim=1)
        logits: Tensor = self.dnn(head).squeeze(1)
        return logits
