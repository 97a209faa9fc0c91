"""Cross networks: bit-wise feature crosses x <- x + x0 * f(x), (N, width) -> (N, width)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossNet(nn.Module):
    """f(x) = w.x, plus a bias vector (DCN, Wang et al. 2017, eq. 3)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = x + weight(x) * x0 + bias
        return x


class CrossNetV2(nn.Module):
    """f(x) = A x + b (DCN-V2, Wang et al. 2021, eq. 1)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for linear in self.linears:
            x = torch.addcmul(x, x0, linear(x))
        return x


class CrossNetMix(nn.Module):
    """f is a mixture of low-rank experts U tanh(C tanh(V' x)) + b (DCN-V2, section 3.4).

    The gates, one bias-free linear for each expert, are shared by all layers.
    """

    def __init__(self, width: int, layers: int, experts: int = 4, rank: int = 32) -> None:
        super().__init__()

        def matrices(*shape: int) -> nn.ParameterList:
            # Xavier-normal over each layer's stack, as the public implementation draws it.
            return nn.ParameterList(
                nn.Parameter(nn.init.xavier_normal_(torch.empty(experts, *shape)))
                for _ in range(layers)
            )

        self.v = matrices(width, rank)
        self.c = matrices(rank, rank)
        self.u = matrices(width, rank)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.gates = nn.Linear(width, experts, bias=False)

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for v, c, u, bias in zip(self.v, self.c, self.u, self.biases, strict=True):
            low = torch.tanh(torch.einsum("nw,ewr->ner", x, v))
            low = torch.tanh(torch.einsum("ner,esr->nes", low, c))
            gate = self.gates(x).softmax(dim=-1)
            # The gates sum to one, so the bias that the experts share stands outside the mixture.
            mixed = torch.einsum("nes,ews->nw", low * gate[:, :, None], u) + bias
            x = torch.addcmul(x, x0, mixed)
        return x
