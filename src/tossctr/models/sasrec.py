"""SASRec (Kang & McAuley, ICDM 2018) for click prediction.

    embed                             histories (M - B, D), targets (B, D), other fields
    append the target; add the position                               (M, D)
    causal Transformer: each event sees itself and earlier ones       (M, D)
    pool, by default the target's own output                          (B, D)
    MLP on the columns that are not targets and the pooled vector     (B,)

The paper predicts the next item; here the candidate is appended to its history and an MLP scores
it. Differs from FuxiCTR's version: causal by default, as in the paper.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from torch import Tensor

from tossctr.config.names import Names
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.fields import check_groups, max_len_of
from tossctr.models.layers.embedding import new_table
from tossctr.models.layers.pooling import POOLINGS, PoolingName
from tossctr.models.options import TransformerOptions
from tossctr.models.target_history import TargetHistoryModel


class SASRecConfig(TransformerOptions):
    """FuxiCTR's option names. Field i of `target_field` continues field i of `sequence_field`."""

    target_field: Names
    sequence_field: Names
    seq_pooling_type: PoolingName = "target"
    use_causal_mask: bool = True

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_groups((self.target_field,), (self.sequence_field,), "target_field")
        return self


class SASRec(TargetHistoryModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair, heads that do not divide, a missing `max_len`.
    """

    Config = SASRecConfig

    def __init__(self, features: FeatureMap, config: SASRecConfig) -> None:
        c = config
        super().__init__(features, c, (c.target_field,), (c.sequence_field,))
        self.head_field = tuple(name for name in self.columns if name not in c.target_field)
        width = self.width(c.sequence_field)
        self.max_len = max_len_of(features, c.sequence_field, "SASRec's position table")
        self.position = new_table(self.max_len + 1, width)  # with the target
        self.transformer = c.transformer(width)
        self.pooling = POOLINGS[c.seq_pooling_type](width, self.max_len + 1)
        self.dnn = c.dnn(self.width(self.head_field) + self.pooling.output_width)
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        x, events = self.target_last(batch, 0, self.max_len)
        x = self.transformer(x + self.position(events.age), events)
        pooled = self.pooling(x, events)
        return self.score([self.embedding.rows(batch, self.head_field), pooled])
