"""DIN (Zhou et al., KDD 2018): events weighted by their relevance to the target.

embed                                                      histories (M, d), columns (B, F*d)
attend from the target to its history, for each pair of fields or groups    (B, d)
MLP on columns and attended histories                                       (B,)
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from tossctr.config.names import Groups
from tossctr.config.schema import HiddenUnits
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.fields import check_groups, check_histories
from tossctr.models.layers.packed import without_target
from tossctr.models.layers.target_attention import DINAttention
from tossctr.models.options import DNNOptions
from tossctr.models.target_history import TargetHistoryModel


class DINConfig(DNNOptions):
    """FuxiCTR's option names. Each pair of `din_target_field` and `din_sequence_field` has its own
    attention; a pair of groups of fields is attended as one."""

    din_target_field: Groups
    din_sequence_field: Groups
    din_use_softmax: bool = False
    attention_hidden_units: HiddenUnits = (64,)
    attention_hidden_activations: str = "dice"
    attention_output_activation: str | None = None
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    dnn_hidden_units: HiddenUnits = (512, 128, 64)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_groups(self.din_target_field, self.din_sequence_field, "din_target_field")
        return self


class DIN(TargetHistoryModel):
    """See the module's docstring.

    Raises:
        UserError: fields that do not pair.
    """

    Config = DINConfig

    def __init__(self, features: FeatureMap, config: DINConfig) -> None:
        c = config
        super().__init__(features, c, c.din_target_field, c.din_sequence_field, prefix="din_")
        widths = [self.width(sequences) for _, sequences in self.pairs]
        self.attention = nn.ModuleList(
            DINAttention(
                width,
                c.attention_hidden_units,
                activations=c.attention_hidden_activations,
                output_activation=c.attention_output_activation,
                dropout=c.attention_dropout,
                use_softmax=c.din_use_softmax,
            )
            for width in widths
        )
        self.dnn = c.dnn(self.width(self.columns) + sum(widths))
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        parts = [self.embedding.rows(batch, self.columns)]
        for attention, (targets, sequences) in zip(self.attention, self.pairs, strict=True):
            check_histories(batch, sequences, None)
            history = self.embedding.events(batch, sequences)
            target = self.embedding.rows(batch, targets)
            events = without_target(batch.sequences[sequences[0]])
            parts.append(attention(history, target, events)[0])
        return self.score(parts)
