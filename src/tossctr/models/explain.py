"""Attention weights of FESeq over events and fields."""

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
    """Weights for one batch. M is the number of events of all rows, each row's target last.

    Attributes:
        logits: (B,).
        events: the row and age of each of the M events.
        attention: for each Transformer block (M, heads), the target's attention to the events of
            its row; sums to 1 over a row.
        pooling: (M,) weights of `weighted_sum` pooling; None for other poolings.
        fields: names of the F fields of an event.
        interaction: the weights between fields of each interaction layer. autoint and destine:
            (M, F, F), for each event the weight of field j in the output for field i. crossnetv2:
            (F, F), root mean square of each block of the cross matrix (DCN-V2, figure 7). Empty for
            other layers.
    """

    logits: Tensor
    events: Events
    attention: list[Tensor]
    pooling: Tensor | None
    fields: tuple[str, ...]
    interaction: list[Tensor]


def explain(model: FESeq, batch: Batch) -> Explanation:
    """Run the model once in evaluation mode and record the weights in its layers.

    Memory is that of a forward pass: attention is computed for the target only, never T x T.
    """
    attention: list[Tensor] = []
    pooling: list[Tensor] = []
    interaction: list[Tensor] = []

    def record_attention(block: TransformerBlock, args: tuple[Any, ...], _: Tensor) -> None:
        attention.append(block.attention.last_attention(args[0], args[1]))

    def record_pooling(_: nn.Module, __: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        pooling.append(out[1])

    def record_interaction(layer: Any, args: tuple[Any, ...], _: Tensor) -> None:
        interaction.append(layer.weights(args[0]))

    hooks: dict[type[nn.Module], Callable[..., None]] = {
        TransformerBlock: record_attention,
        AttentionPooling: record_pooling,
        AutoIntLayer: record_interaction,
        DestineLayer: record_interaction,
    }
    skipped = set(model.item_interaction.modules()) if hasattr(model, "item_interaction") else ()
    training = model.training
    with ExitStack() as stack, torch.no_grad():
        stack.callback(model.train, training)
        for module in model.modules():
            if type(module) in hooks and module not in skipped:
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
    # Root mean squares, so that wide fields do not seem more important.
    squares = matrix.detach().square()
    rows = [torch.split(band, widths, dim=1) for band in torch.split(squares, widths, dim=0)]
    return torch.stack([torch.stack([block.mean().sqrt() for block in row]) for row in rows])
