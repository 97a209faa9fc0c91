"""What every model is: a module from `Batch` to logits, with its typed config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from tossctr.config.messages import suggestion
from tossctr.config.schema import ModelConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap, FieldKind
from tossctr.errors import UserError
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.transformer import SelfAttention


def _flat(value: Any) -> Any:
    # FuxiCTR's files write one name, a list of names, or a list of tuples of names.
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(n for v in value for n in (v if isinstance(v, list | tuple) else (v,)))


COLUMNS: tuple[FieldKind, ...] = ("categorical", "numeric")
SEQUENCES: tuple[FieldKind, ...] = ("sequence", "numeric_sequence")
Names = Annotated[tuple[str, ...], BeforeValidator(_flat)]
"""Field names in a model's config: a list, a lone name, or null for none."""


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


def check_fields(
    features: FeatureMap, option: str, names: Iterable[str], kinds: tuple[FieldKind, ...]
) -> None:
    """Check that an option names fields of certain kinds.

    Raises:
        UserError: it names something else.
    """
    for name in names:
        if name not in features or features[name].kind not in kinds:
            problem = (
                f"names a {features[name].kind} feature"
                if name in features
                else "names an unknown feature"
            )
            raise UserError(
                problem,
                column=option,
                value=name,
                remedy=suggestion(name, features.names(*kinds)),
            )


def same_lengths(batch: Batch, names: Iterable[str]) -> None:
    """Check that the named histories of a batch are equally long, row by row.

    Raises:
        UserError: they are not.
    """
    histories = {**batch.sequences, **batch.time_sequences}
    first, *others = names
    for other in others:
        a, b = histories[first].offsets, histories[other].offsets
        if not torch.equal(a, b):
            row = int((a.diff() != b.diff()).nonzero()[0])
            number = row if batch.row is None else int(batch.row[row])
            raise UserError(
                f"has {int(b.diff()[row])} events where {first} has {int(a.diff()[row])}",
                column=other,
                row=number,
                remedy="sequence fields of one model must have equal lengths",
            )
