"""Base class of the models: a module from `Batch` to logits, with a typed config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from tossctr.config.schema import ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.transformer import SelfAttention


class CTRModel(nn.Module, ABC):
    """Base of the models: a subclass builds its layers, then calls `initialise`.

    Args:
        features: the fields, with the lengths chosen for training.
        config: an instance of the class's `Config`.
    """

    Config: ClassVar[type[ModelConfig]]

    def __init__(self, features: FeatureMap, config: ModelConfig) -> None:
        super().__init__()
        self.features = features
        self.config = config

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""

    def initialise(self) -> None:
        """Draw the weights of linear layers: Xavier normal, those of self-attention's input Xavier
        uniform, biases zero. Other parameters keep the values that their layers drew.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                nn.init.xavier_uniform_(module.qkv.weight)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Parameters that `embedding_regularizer` applies to: all embeddings."""
        return self._select(of_embeddings=True)

    def other_parameters(self) -> list[nn.Parameter]:
        """Parameters that `net_regularizer` applies to: all others."""
        return self._select(of_embeddings=False)

    def _select(self, *, of_embeddings: bool) -> list[nn.Parameter]:
        embedded = {
            parameter
            for module in self.modules()
            if isinstance(module, FieldEmbedding | nn.Embedding)
            for parameter in module.parameters()
        }
        return [p for p in self.parameters() if (p in embedded) is of_embeddings]
