"""Options that several models share, under FuxiCTR's names, and the layers that they describe."""

from __future__ import annotations

from pydantic import Field

from tossctr.config.schema import HiddenUnits, ModelConfig, Width
from tossctr.models.fields import Activations, check_heads
from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.pooling import POOLINGS, PoolingName
from tossctr.models.layers.transformer import Transformer


class DNNOptions(ModelConfig):
    """The MLP that ends a model."""

    dnn_hidden_units: HiddenUnits = (256, 128, 64)
    dnn_activations: Activations = "relu"
    net_dropout: float = Field(0.0, ge=0, lt=1)
    batch_norm: bool = False

    def dnn(self, width: int) -> MLP:
        """The MLP, (B, width) -> (B, 1)."""
        return MLP(
            width,
            self.dnn_hidden_units,
            output_width=1,
            activations=self.dnn_activations,
            dropout=self.net_dropout,
            batch_norm=self.batch_norm,
        )


class TransformerOptions(DNNOptions):
    """A Transformer over the events of each row, the pooling of its output, and the MLP."""

    num_heads: Width = 2
    stacked_transformer_layers: int = Field(1, ge=1)
    use_causal_mask: bool = False
    layer_norm: bool = True
    use_residual: bool = True
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    seq_pooling_type: PoolingName = "mean"

    @property
    def pooling_needing_max_len(self) -> str | None:
        pooling = POOLINGS.get(self.seq_pooling_type)
        return f"{self.seq_pooling_type} pooling" if pooling and pooling.needs_max_len else None

    def transformer(self, width: int) -> Transformer:
        """The Transformer, packed (M, width) -> (M, width).

        Raises:
            UserError: `num_heads` does not divide the width.
        """
        check_heads(width, self.num_heads)
        return Transformer(
            width,
            self.num_heads,
            self.stacked_transformer_layers,
            attention_dropout=self.attention_dropout,
            net_dropout=self.net_dropout,
            causal=self.use_causal_mask,
            layer_norm=self.layer_norm,
            use_residual=self.use_residual,
        )
