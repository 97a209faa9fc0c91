"""Pooling of a row's events to one vector (FESeq, Yuan et al. 2024, section 3.4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from tossctr.models.layers.mlp import MLP
from tossctr.models.layers.packed import (
    Events,
    broadcast,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from tossctr.models.layers.registry import one_of

ScoreName = Literal["dot_attention", "bilinear_attention", "din_attention"]


class Pooling(nn.Module, ABC):
    """Base of the poolings: packed (M, width) -> (B, `output_width`).

    Args:
        width: of an event.
        slots: `max_len` + 1, as many events as a row has at most; 1 if `max_len` is not set.
    """

    needs_max_len: ClassVar[bool] = False

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.output_width = width

    @abstractmethod
    def forward(self, x: Tensor, events: Events) -> Tensor:
        """Pool the (M, width) events of B rows to (B, `output_width`)."""


class MeanPooling(Pooling):
    """The mean of a row's events."""

    def forward(self, x: Tensor, events: Events) -> Tensor:
        return segment_mean(x, events)


class SumPooling(Pooling):
    """The sum of a row's events."""

    def forward(self, x: Tensor, events: Events) -> Tensor:
        return segment_sum(x if events.real is None else x * events.real[:, None], events)


class TargetPooling(Pooling):
    """The last event of each row, the target."""

    def forward(self, x: Tensor, events: Events) -> Tensor:
        return x[events.last]


class ConcatPooling(Pooling):
    """A row's events side by side, the target last; slots without an event are zero.

    If the events include padding, as in the public implementation, its slots hold that instead.
    """

    needs_max_len = True

    def __init__(self, width: int, slots: int) -> None:
        super().__init__(width, slots)
        self.output_width = slots * width

    def forward(self, x: Tensor, events: Events) -> Tensor:
        slot = events.row * self.slots + (self.slots - 1 - events.age)
        padded = x.new_zeros(events.rows * self.slots, x.shape[1]).index_copy(0, slot, x)
        return padded.view(events.rows, -1)


POOLINGS: dict[str, type[Pooling]] = {
    "mean": MeanPooling,
    "sum": SumPooling,
    "target": TargetPooling,
    "concat": ConcatPooling,
}
PoolingName = Annotated[str, one_of(POOLINGS)]


class AttentionPooling(nn.Module):
    """Weighted sum of the events by their relevance to a query.

    Shapes: packed (M, width), queries (B, query_width) -> (B, width), weights (M,).

    Queries, keys, values and the output share one PReLU parameter. Scores: `dot_attention` k.q;
    `bilinear_attention` k M q, M initialised to the identity; `din_attention` an MLP with Dice on
    (q, k, q - k, q * k), not scaled, whose batch statistics are over all M events.
    """

    def __init__(
        self,
        width: int,
        query_width: int,
        hidden: int,
        score: ScoreName,
        *,
        use_scale: bool = True,
        net_dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.score = score
        self.scale = hidden**-0.5 if use_scale else 1.0
        self.query = nn.Linear(query_width, hidden, bias=False)
        self.key = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width)
        self.activation = nn.PReLU(init=0.1)
        self.net_dropout = nn.Dropout(net_dropout)
        self.attention_dropout = nn.Dropout(attention_dropout)
        if score == "bilinear_attention":
            self.bilinear = nn.Parameter(torch.eye(hidden))
        elif score == "din_attention":
            self.relevance = MLP(
                4 * hidden,
                (512, 256, 128),
                output_width=1,
                activations="dice",
                dropout=attention_dropout,
            )

    def forward(self, x: Tensor, query: Tensor, events: Events) -> tuple[Tensor, Tensor]:
        q, k, v = (
            self.net_dropout(self.activation(linear(source)))
            for linear, source in ((self.query, query), (self.key, x), (self.value, x))
        )
        weights = segment_softmax(self._scores(q, k, events), events)
        mixed = segment_sum(self.attention_dropout(weights)[:, None] * v, events)
        return self.activation(self.output(mixed)), weights

    def _scores(self, q: Tensor, k: Tensor, events: Events) -> Tensor:
        match self.score:
            case "dot_attention":
                return (k * broadcast(q, events)).sum(dim=1) * self.scale
            case "bilinear_attention":
                return (k * broadcast(q @ self.bilinear.T, events)).sum(dim=1) * self.scale
            case "din_attention":
                q = broadcast(q, events)
                scores: Tensor = self.relevance(torch.cat([q, k, q - k, q * k], dim=1))
                return scores.squeeze(1)
