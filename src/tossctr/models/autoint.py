"""AutoInt (Song et al., CIKM 2019): self-attention over fields, an MLP, a linear model.

embed F fields, sequences pooled                     (B, F, d)
interacting layers                                   (B, F, a)
logit = linear(flattened) [+ MLP(embeddings)] [+ linear model if use_wide]
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from tossctr.config.schema import HiddenUnits, ModelConfig, Width
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.base import CTRModel
from tossctr.models.fields import Activations, check_heads, one_width
from tossctr.models.layers.autoint import AutoIntLayer
from tossctr.models.layers.mlp import MLP, Output
from tossctr.models.layers.tabular import TabularEmbedding, linear_part


class AutoIntConfig(ModelConfig):
    """FuxiCTR's option names."""

    attention_layers: int = Field(2, ge=1)
    num_heads: Width = 1
    attention_dim: Width = 8  # of all heads together
    use_residual: bool = True
    use_scale: bool = False
    use_wide: bool = False
    layer_norm: bool = False
    net_dropout: float = Field(0.0, ge=0, lt=1)  # on the attention weights
    dnn_hidden_units: HiddenUnits = (64, 64, 64)  # empty: no MLP
    dnn_activations: Activations = "relu"
    batch_norm: bool = False


class AutoInt(CTRModel):
    """See the module's docstring.

    Raises:
        UserError: features of unequal `embedding_dim`; `num_heads` does not divide `attention_dim`.
    """

    Config = AutoIntConfig

    def __init__(self, features: FeatureMap, config: AutoIntConfig) -> None:
        super().__init__(features, config)
        c = config
        check_heads(c.attention_dim, c.num_heads, "attention_dim")
        self.embedding = TabularEmbedding(features, c.embedding_dim, numeric=c.numeric_embedding)
        widths = self.embedding.widths
        self.width = one_width(widths, "AutoInt")
        self.interaction = nn.Sequential(
            *(
                AutoIntLayer(
                    self.width if layer == 0 else c.attention_dim,
                    c.attention_dim,
                    c.num_heads,
                    c.net_dropout,
                    use_residual=c.use_residual,
                    use_scale=c.use_scale,
                    layer_norm=c.layer_norm,
                )
                for layer in range(c.attention_layers)
            )
        )
        self.output = Output(len(widths) * c.attention_dim, 1)
        self.dnn = (
            MLP(
                sum(widths),
                c.dnn_hidden_units,
                output_width=1,
                activations=c.dnn_activations,
                batch_norm=c.batch_norm,
            )
            if c.dnn_hidden_units
            else None
        )
        self.weights = linear_part(features) if c.use_wide else None
        self.initialise()

    def forward(self, batch: Batch) -> Tensor:
        x = self.embedding(batch)
        logits: Tensor = self.output(self.interaction(x.view(len(x), -1, self.width)).flatten(1))
        if self.dnn is not None:
            logits = logits + self.dnn(x)
        if self.weights is not None:
            logits = logits + self.weights(batch).sum(1, keepdim=True)
        return logits.squeeze(1)
