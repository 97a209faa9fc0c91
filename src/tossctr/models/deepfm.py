"""DeepFM (Guo et al., IJCAI 2017): a factorisation machine and an MLP over the same embeddings.

    embed F fields, sequences pooled            (B, F, d)
    FM: bias + weights + pairwise products      (B,)
    MLP on the concatenation                    (B,)
    logit = FM + MLP

Differs from FuxiCTR: the linear weights of a sequence are pooled like its embeddings (mean by
default) instead of summed, so that a long history does not dominate the logit.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from tossctr.config.schema import HiddenUnits, ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.fields import Activations, one_width
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.tabular import TabularEmbedding, linear_part


class DeepFMConfig(ModelConfig):
    """FuxiCTR's option names."""

    hidden_units: HiddenUnits = (64, 64, 64)
    hidden_activations: Activations = "relu"
    net_dropout: float = Field(0.0, ge=0, lt=1)
    batch_norm: bool = False


class DeepFM(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: features of unequal `embedding_dim`.
    """

    Config = DeepFMConfig

    def __init__(self, features: FeatureMap, config: DeepFMConfig) -> None:
        super().__init__(features, config)
        self.embedding = TabularEmbedding(
            features, config.embedding_dim, numeric=config.numeric_embedding
        )
        self.width = one_width(self.embedding.widths, "DeepFM")
        self.weights = linear_part(features)
        self.bias = nn.Parameter(torch.zeros(()))
        self.mlp = MLP(
            sum(self.embedding.widths),
            config.hidden_units,
            output_width=1,
            activations=config.hidden_activations,
            dropout=config.net_dropout,
            batch_norm=config.batch_norm,
        )
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        x = self.embedding(batch)
        fields = x.view(len(x), -1, self.width)
        # Sum over pairs of v_i . v_j = half of (square of sum - sum of squares), FM eq. 5.
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1)
        logits: Tensor = self.bias + self.weights(batch).sum(1) + pairs + self.mlp(x).squeeze(1)
        return logits
