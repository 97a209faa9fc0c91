"""Attention from a row's target to its events."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tossctr.models.layers.mlp import MLP, activation
from tossctr.models.layers.packed import Events, broadcast, segment_softmax, segment_sum


class DINAttention(nn.Module):
    """DIN's local activation unit (Zhou et al., KDD 2018, figure 2).

    Shapes: packed (M, width), targets (B, width) -> (B, width); zero for an empty row. The weight
    of an event is an MLP of (target, event, target - event, target * event). Without softmax by
    default, so that the sum keeps the intensity of interest.
    """

    def __init__(
        self,
        width: int,
        hidden_units: Sequence[int],
        *,
        activations: str = "dice",
        output_activation: str | None = None,
        dropout: float = 0.0,
        use_softmax: bool = False,
    ) -> None:
        super().__init__()
        self.use_softmax = use_softmax
        self.mlp = MLP(
            4 * width, hidden_units, output_width=1, activations=activations, dropout=dropout
        )
        self.activation = activation(output_activation, 1) if output_activation else nn.Identity()

    def forward(self, x: Tensor, target: Tensor, events: Events) -> tuple[Tensor, Tensor]:
        q = broadcast(target, events)
        weights = self.activation(self.mlp(torch.cat([q, x, q - x, q * x], dim=1)))
        if self.use_softmax:
            weights = segment_softmax(weights, events)
        return segment_sum(weights * x, events), weights


class MultiHeadTargetAttention(nn.Module):
    """Multi-head scaled dot-product attention from one query per row to the row's events.

    Shapes: packed (M, width), queries (B, query_width) -> (B, width), weights (M, heads); zero
    for an empty row.
    """

    def __init__(
        self, width: int, query_width: int, attention_width: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, attention_width // num_heads
        self.query = nn.Linear(query_width, attention_width, bias=False)
        self.key = nn.Linear(width, attention_width, bias=False)
        self.value = nn.Linear(width, attention_width, bias=False)
        self.output = nn.Linear(attention_width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query: Tensor, events: Events) -> tuple[Tensor, Tensor]:
        q, k, v = (
            linear(source).unflatten(1, (self.num_heads, self.head_width))
            for linear, source in ((self.query, query), (self.key, x), (self.value, x))
        )
        scores = (broadcast(q, events) * k).sum(-1) / self.head_width**0.5
        weights = segment_softmax(scores, events)
        mixed = segment_sum(self.dropout(weights)[:, :, None] * v, events)
        return self.output(mixed.flatten(1)), weights
