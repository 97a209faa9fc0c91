"""DIN (Zhou et al., KDD 2018): the history weighted by its relevance to the target.

embed                         histories (M, d), all other fields (B, F*d)
attention of the target to its history, for each pair of fields or group of them    (B, d)
MLP on fields and attended histories                                                (B,)
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tossctr.config.schema import HiddenUnits, ModelConfig
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
    check_histories,
    check_pairs,
)
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.packed import without_target
from tossctr.models.layers.target_attention import DINAttention


class DINConfig(ModelConfig):
    """FuxiCTR's option names. Pair i of `din_target_field` and `din_sequence_field` is one
    attention; a group of fields in both attends as one."""

    din_target_field: Groups
    din_sequence_field: Groups
    din_use_softmax: bool = False
    attention_hidden_units: HiddenUnits = (64,)
    attention_hidden_activations: str = "dice"
    attention_output_activation: str | None = None
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    dnn_hidden_units: HiddenUnits = (512, 128, 64)
    dnn_activations: Activations = "relu"
    net_dropout: float = Field(0.0, ge=0, lt=1)
    batch_norm: bool = False

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_groups(self.din_target_field, self.din_sequence_field, "din_target_field")
        return self


class DIN(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair.
    """

    Config = DINConfig

    def __init__(self, features: FeatureMap, config: DINConfig) -> None:
        super().__init__(features, config)
        c = config
        self.pairs = tuple(zip(c.din_target_field, c.din_sequence_field, strict=True))
        self.columns = features.names(*COLUMNS)
        for targets, sequences in self.pairs:
            check_fields(features, "din_target_field", targets, COLUMNS)
            check_fields(features, "din_sequence_field", sequences, SEQUENCES)
        histories = [name for _, sequences in self.pairs for name in sequences]
        self.embedding = FieldEmbedding(
            features, (*self.columns, *histories), c.embedding_dim, numeric=c.numeric_embedding
        )
        for targets, sequences in self.pairs:
            check_pairs(self.embedding, targets, sequences, "din_target_field")
        self.attention = nn.ModuleList(
            DINAttention(
                sum(self.embedding.widths(sequences)),
                c.attention_hidden_units,
                activations=c.attention_hidden_activations,
                output_activation=c.attention_output_activation,
                dropout=c.attention_dropout,
                use_softmax=c.din_use_softmax,
            )
            for _, sequences in self.pairs
        )
        self.dnn = MLP(
            sum(self.embedding.widths((*self.columns, *histories))),
            c.dnn_hidden_units,
            output_width=1,
            activations=c.dnn_activations,
            dropout=c.net_dropout,
            batch_norm=c.batch_norm,
        )
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        parts = [self.embedding.rows(batch, self.columns)]
        for attention, (targets, sequences) in zip(self.attention, self.pairs, strict=True):
            check_histories(batch, sequences, None)
            history = self.embedding.events(batch, sequences)
            target = self.embedding.rows(batch, targets)
            events = without_target(batch.sequences[sequences[0]])
            parts.append(attention(history, target, events)[0])
        logits: Tensor = self.dnn(torch.cat(parts, dim=1)).squeeze(1)
        return logits
