"""Embeddings of numbers beyond one vector each (Gorishniy, Rubachev, Babenko, NeurIPS 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BINS = 16
FREQUENCIES = 16
FREQUENCY_STD = 1.0  # periods over the range 0 to 1


class FieldwiseLinear(nn.Module):
    """A linear map of its own for each of n fields: (B, m, d_in), m of the fields -> (B, m, d_out).

    Drawn as `nn.Linear` is: uniform within 1 / sqrt(d_in).
    """

    def __init__(self, fields: int, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = d_in**-0.5
        self.weight = nn.Parameter(torch.empty(fields, d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(fields, d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, fields: list[int]) -> Tensor:
        weight, bias = self.weight[fields], self.bias[fields]
        out: Tensor = torch.einsum("bmi,mio->bmo", x, weight) + bias
        return out


class PiecewiseLinear(nn.Module):
    """Section 3.2: how far a number has come through each of `BINS` bins, then a linear map.

    The bins part the range 0 to 1 evenly; of numbers that are ranks (`normalizer: quantile`) they
    are the quantile bins of the paper. The outer bins go on beyond the range.

    Shapes: (B, m) numbers of m of the fields -> (B, m, width).
    """

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.linear = FieldwiseLinear(fields, BINS, width)
        edges = torch.arange(BINS, dtype=torch.float32)
        low, high = torch.zeros(BINS), torch.ones(BINS)
        low[0], high[-1] = -math.inf, math.inf
        for name, value in (("edges", edges), ("low", low), ("high", high)):
            self.register_buffer(name, value, persistent=False)
        self.edges: Tensor
        self.low: Tensor
        self.high: Tensor

    def forward(self, x: Tensor, fields: list[int]) -> Tensor:
        through = (x[..., None] * BINS - self.edges).clamp(self.low, self.high)
        out: Tensor = self.linear(through, fields)
        return out


class Periodic(nn.Module):
    """Section 3.3: sines and cosines of learnt frequencies, then a linear map and ReLU ("PLR").

    Shapes: as `PiecewiseLinear`.
    """

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(fields, FREQUENCIES) * FREQUENCY_STD)
        self.linear = FieldwiseLinear(fields, 2 * FREQUENCIES, width)

    def forward(self, x: Tensor, fields: list[int]) -> Tensor:
        angle = 2 * math.pi * x[..., None] * self.frequency[fields]
        waves = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        return F.relu(self.linear(waves, fields))


NUMERIC: dict[str, type[PiecewiseLinear | Periodic]] = {
    "piecewise": PiecewiseLinear,
    "periodic": Periodic,
}
