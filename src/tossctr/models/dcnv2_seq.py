"""DCN-V2 with attention over the history.

The best neural model of the 5th-place solution in the Toss competition had this structure: DCN-V2
(Wang et al., WWW 2021) over all columns and a pooled sequence.

    embed                                          histories (M, W), columns (B, F*d)
    concatenate the position                       (M, W + d)
    attend from the target fields to the events    (B, W + d)
    cross network and MLP over [columns, history]  (B,)

Any columns can be the query; they need not be paired with the sequences. The target is not
appended to the history, so an empty history gives a zero vector.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from tossctr.config.names import Names
from tossctr.config.schema import Width
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.dcnv2 import CrossAndDeep, DCNv2Config
from tossctr.models.fields import check_heads, check_histories, max_len_of
from tossctr.models.layers.embedding import new_table
from tossctr.models.layers.packed import without_target
from tossctr.models.layers.target_attention import MultiHeadTargetAttention
from tossctr.models.target_history import TargetHistoryModel


class DCNv2SeqConfig(DCNv2Config):
    """The options of DCN-V2 and of the attention, under FuxiCTR's names."""

    target_field: Names = Field(min_length=1)  # the query
    sequence_field: Names = Field(min_length=1)
    use_position_emb: bool = True
    attention_dim: Width = 64  # over all heads
    num_heads: Width = 1
    attention_dropout: float = Field(0.0, ge=0, lt=1)


class DCNv2Seq(TargetHistoryModel):
    """See the module's docstring.

    Raises:
        UserError: unknown fields, heads that do not divide, a missing `max_len`.
    """

    Config = DCNv2SeqConfig
    config: DCNv2SeqConfig

    def __init__(self, features: FeatureMap, config: DCNv2SeqConfig) -> None:
        c = config
        super().__init__(features, c, (c.target_field,), (c.sequence_field,), paired=False)
        width = self.width(c.sequence_field)
        self.max_len: int | None
        if c.use_position_emb:
            self.max_len = length = max_len_of(features, c.sequence_field, "use_position_emb")
            self.position = new_table(length, c.embedding_dim)
            width += c.embedding_dim
        else:
            self.max_len = max_len_of(features, c.sequence_field)
        check_heads(c.attention_dim, c.num_heads, "attention_dim")
        self.attention = MultiHeadTargetAttention(
            width,
            self.width(c.target_field),
            c.attention_dim,
            c.num_heads,
            c.attention_dropout,
        )
        self.head = CrossAndDeep(self.width(self.columns) + width, c)
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        c, embedding = self.config, self.embedding
        check_histories(batch, c.sequence_field, self.max_len)
        events = without_target(batch.sequences[c.sequence_field[0]])
        x = embedding.events(batch, c.sequence_field)
        if c.use_position_emb:
            x = torch.cat([x, self.position(events.age)], dim=1)
        history, _ = self.attention(x, embedding.rows(batch, c.target_field), events)
        columns = embedding.rows(batch, self.columns)
        logits: Tensor = self.head(torch.cat([columns, history], dim=1))
        return logits
