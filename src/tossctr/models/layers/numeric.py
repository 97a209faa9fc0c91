"""Piecewise linear and periodic embeddings of numbers (Gorishniy et al., NeurIPS 2022).

Both expect inputs scaled to about [0, 1].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BINS = 16
FREQUENCIES = 16
FREQUENCY_STD = 1.0  # periods over [0, 1]


class FieldwiseLinear(nn.Module):
    """One linear layer per field, for m of them: (B, m, d_in) -> (B, m, d_out).

    Initialised as `nn.Linear` is: uniform within 1 / sqrt(d_in).
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
    """Section 3.2: a piecewise linear encoding over `BINS` bins, then a linear layer.

    The bins divide [0, 1] evenly; with `normalizer: quantile` they are the paper's quantile bins.
    The first and last bin extend beyond the range.

    Shapes: (B, m), numbers of m fields -> (B, m, width).
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
        encoded = (x[..., None] * BINS - self.edges).clamp(self.low, self.high)
        out: Tensor = self.linear(encoded, fields)
        return out


class Periodic(nn.Module):
    """Section 3.3: sines and cosines of learned frequencies, then a linear layer and ReLU ("PLR").

    Shapes: (B, m), numbers of m fields -> (B, m, width).
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
