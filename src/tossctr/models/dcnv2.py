"""DCN-V2 (Wang et al., WWW 2021): a cross network and an MLP over the same embeddings.

embed F fields, sequences pooled                          (B, W)
crossnet_only       linear(cross)
stacked             linear(MLP(cross))
parallel            linear([cross, MLP(x)])
stacked_parallel    linear([MLP(cross), MLP(x)])
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tossctr.config.schema import HiddenUnits, ModelConfig, Width
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.models.base import CTRModel
from tossctr.models.fields import Activations
from tossctr.models.layers.cross import CrossNetMix, CrossNetV2
from tossctr.models.layers.mlp import MLP, Output
from tossctr.models.layers.tabular import TabularEmbedding


class DCNv2Config(ModelConfig):
    """FuxiCTR's option names."""

    model_structure: Literal["crossnet_only", "stacked", "parallel", "stacked_parallel"] = (
        "parallel"
    )
    num_cross_layers: int = Field(3, ge=1)
    use_low_rank_mixture: bool = False
    low_rank: Width = 32
    num_experts: Width = 4
    stacked_dnn_hidden_units: HiddenUnits = ()
    parallel_dnn_hidden_units: HiddenUnits = ()
    dnn_activations: Activations = "relu"
    net_dropout: float = Field(0.0, ge=0, lt=1)
    batch_norm: bool = False

    @model_validator(mode="after")
    def _layers_of_the_structure(self) -> Self:
        for name in ("stacked", "parallel"):
            option = f"{name}_dnn_hidden_units"
            if name in self.model_structure.split("_") and not getattr(self, option):
                raise UserError(
                    f"model_structure {self.model_structure} needs hidden layers", key=option
                )
        return self


class CrossAndDeep(nn.Module):
    """The cross network and the MLPs: (B, width) -> logits (B,)."""

    def __init__(self, width: int, config: DCNv2Config) -> None:
        super().__init__()
        c = config
        self.cross: nn.Module = (
            CrossNetMix(width, c.num_cross_layers, c.num_experts, c.low_rank)
            if c.use_low_rank_mixture
            else CrossNetV2(width, c.num_cross_layers)
        )
        self.stacked = self.parallel = None
        output_width = width
        if "stacked" in c.model_structure:
            self.stacked = self._mlp(width, c.stacked_dnn_hidden_units, c)
            output_width = self.stacked.output_width
        if "parallel" in c.model_structure:
            self.parallel = self._mlp(width, c.parallel_dnn_hidden_units, c)
            output_width += self.parallel.output_width
        self.output = Output(output_width, 1)

    @staticmethod
    def _mlp(width: int, hidden: HiddenUnits, c: DCNv2Config) -> MLP:
        return MLP(
            width,
            hidden,
            activations=c.dnn_activations,
            dropout=c.net_dropout,
            batch_norm=c.batch_norm,
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.cross(x)
        if self.stacked is not None:
            out = self.stacked(out)
        if self.parallel is not None:
            out = torch.cat([out, self.parallel(x)], dim=1)
        logits: Tensor = self.output(out).squeeze(1)
        return logits


class DCNv2(CTRModel):
    """See the module's docstring."""

    Config = DCNv2Config

    def __init__(self, features: FeatureMap, config: DCNv2Config) -> None:
        super().__init__(features, config)
        self.embedding = TabularEmbedding(
            features, config.embedding_dim, numeric=config.numeric_embedding
        )
        self.head = CrossAndDeep(sum(self.embedding.widths), config)
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(self.embedding(batch))
        return logits
