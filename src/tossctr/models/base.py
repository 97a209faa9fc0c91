"""What every model is: a module from `Batch` to logits, with its typed config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from tossctr.config.schema import ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.transformer import SelfAttention


class CTRModel(nn.Module):
    """Base of the models: a subclass builds its layers and ends its constructor with `initialise`.

    Args:
        features: the fields, with the lengths chosen for training.
        config: an instance of the class's `Config`.
    """

    Config: ClassVar[type[ModelConfig]]

    def __init__(self, features: FeatureMap, config: ModelConfig) -> None:
        super().__init__()
        self.features = features
        self.config = config

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B,)."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Draw the linear maps: Xavier-normal, attention's input map Xavier-uniform, biases zero.

        Tables and the rest stay as their layers drew them.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                nn.init.xavier_uniform_(module.qkv.weight)

    def embedding_parameters(self) -> Iterator[nn.Parameter]:
        """What `embedding_regularizer` applies to: every table, and the numbers' vectors."""
        yield from self._split()[0]

    def other_parameters(self) -> Iterator[nn.Parameter]:
        """What `net_regularizer` applies to: all the rest."""
        yield from self._split()[1]

    def _split(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        embedded = {
            id(parameter)
            for module in self.modules()
            if isinstance(module, FieldEmbedding | nn.Embedding)
            for parameter in module.parameters()
        }
        parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in self.parameters():
            parts[id(parameter) not in embedded].append(parameter)
        return parts
