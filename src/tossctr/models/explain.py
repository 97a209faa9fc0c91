"""What FESeq looked at, for reading: which events, which fields."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tossctr.data.batch import Batch
from tossctr.models.feseq import FESeq
from tossctr.models.layers.autoint import AutoIntLayer
from tossctr.models.layers.cross import CrossNetV2
from tossctr.models.layers.destine import DestineLayer
from tossctr.models.layers.packed import Events
from tossctr.models.layers.pooling import AttentionPooling
from tossctr.models.layers.transformer import TransformerBlock


@dataclass(frozen=True)
class Explanation:
    """Weights of one batch; M counts the events of all rows, each row's target last.

    Attributes:
        logits: (B,).
        events: which row each of the M belongs to (`row`) and how old it is (`age`).
        attention: for each Transformer block (M, heads), the target's attention to each event of
            its row; sums to 1 over a row.
        pooling: (M,) weights of `weighted_sum` pooling, else None.
        fields: names of the F fields of an event.
        interaction: for each interaction layer the weights between fields. autoint and destine:
            (M, F, F), of field j in the new field i, event by event. crossnetv2: (F, F), the norm
            of each block of the cross matrix per entry (DCN-V2, figure 7). Else none.
    """

    logits: Tensor
    events: Events
    attention: list[Tensor]
    pooling: Tensor | None
    fields: tuple[str, ...]
    interaction: list[Tensor]


def explain(model: FESeq, batch: Batch) -> Explanation:
    """Run the model once, in evaluation mode, and keep what its layers weighed.

    Memory is that of a forward pass: attention is read for the target alone, never T x T.
    """
    attention: list[Tensor] = []
    pooling: list[Tensor] = []
    interaction: list[Tensor] = []

    def keep_attention(block: TransformerBlock, given: tuple[Any, ...], _: Tensor) -> None:
        attention.append(block.attention.last_attention(given[0], given[1]))

    def keep_pooling(_: nn.Module, __: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        pooling.append(out[1])

    def keep_fields(layer: Any, given: tuple[Any, ...], _: Tensor) -> None:
        interaction.append(layer.weights(given[0]))

    hooks: dict[type[nn.Module], Callable[..., None]] = {
        TransformerBlock: keep_attention,
        AttentionPooling: keep_pooling,
        AutoIntLayer: keep_fields,
        DestineLayer: keep_fields,
    }
    of_items = set(model.item_interaction.modules()) if hasattr(model, "item_interaction") else ()
    training = model.training
    with ExitStack() as stack, torch.no_grad():
        stack.callback(model.train, training)
        for module in model.modules():
            if type(module) in hooks and module not in of_items:
                stack.callback(module.register_forward_hook(hooks[type(module)]).remove)
        logits = model.eval()(batch)
    fields = (*model.config.sequence_field, *model.config.default_field)
    if isinstance(model.interaction.block, CrossNetV2):
        widths = model.embedding.widths(fields)
        interaction = [
            _block_norms(a.get_parameter("weight"), widths) for a in model.interaction.block.linears
        ]
    events = model.events(batch)
    return Explanation(logits, events, attention, next(iter(pooling), None), fields, interaction)


def _block_norms(matrix: Tensor, widths: list[int]) -> Tensor:
    # Root mean square of each (field, field) block, so that wide fields do not look important.
    squares = matrix.detach().square()
    rows = [torch.split(band, widths, dim=1) for band in torch.split(squares, widths, dim=0)]
    return torch.stack([torch.stack([block.mean().sqrt() for block in row]) for row in rows])
