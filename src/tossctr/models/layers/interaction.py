"""Feature interaction blocks by name, with the same weights for every event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tossctr.errors import UserError
from tossctr.models.layers.autoint import AutoIntLayer
from tossctr.models.layers.cross import CrossNet, CrossNetMix, CrossNetV2
from tossctr.models.layers.destine import DestineLayer
from tossctr.models.layers.final import FinalBlock
from tossctr.models.layers.packed import Events, broadcast

InteractionName = Literal[
    "crossnet", "crossnetv2", "crossnet_mix", "autoint", "destine", "final", "none"
]


class Interaction(nn.Module):
    """Feature interaction within each of N events: (N, sum of widths) -> the same shape.

    Bit-wise blocks (crossnet, crossnetv2, crossnet_mix, final) take the concatenation, vector-wise
    ones (autoint, destine) take (N, fields, width).

    Raises:
        UserError: fields of unequal widths in a vector-wise block.
    """

    def __init__(
        self, name: InteractionName, widths: Sequence[int], layers: int, dropout: float
    ) -> None:
        super().__init__()
        total, self.width = sum(widths), widths[0]
        self.vector_wise = name in ("autoint", "destine")
        if self.vector_wise and len(set(widths)) > 1:
            raise UserError(
                f"{name} needs fields of one embedding_dim",
                key="interaction_layer_name",
                value=list(widths),
                remedy="use a cross network, or one embedding_dim",
            )
        width = self.width
        self.block: nn.Module
        match name:
            case "crossnet":
                self.block = CrossNet(total, layers)
            case "crossnetv2":
                self.block = CrossNetV2(total, layers)
            case "crossnet_mix":
                self.block = CrossNetMix(total, layers)
            case "final":
                self.block = FinalBlock(total, layers, dropout)
            case "autoint":
                self.block = nn.Sequential(
                    *(AutoIntLayer(width, dropout=dropout) for _ in range(layers))
                )
            case "destine":
                self.block = nn.Sequential(*(DestineLayer(width, dropout) for _ in range(layers)))
            case "none":
                self.block = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.vector_wise:
            out: Tensor = self.block(x.view(len(x), -1, self.width)).flatten(1)
        else:
            out = self.block(x)
        return out

    def forward_shared(self, own: Tensor, shared: Tensor, events: Events) -> Tensor:
        """`forward` for [own, shared] at each event: own (M, ...), shared (B, ...) by row."""
        block = self.block
        if isinstance(block, CrossNetV2) and block.linears and not _autocast(own):
            return block.forward_shared(own, shared, events)
        out: Tensor = self(torch.cat([own, broadcast(shared, events)], dim=1))
        return out


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)
