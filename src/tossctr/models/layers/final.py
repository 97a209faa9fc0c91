"""FINAL's factorised interaction layers (Zhu et al. 2023)."""

from __future__ import annotations

from torch import Tensor, nn

from tossctr.models.layers.norm import BatchNorm


class FinalBlock(nn.Module):
    """n layers of linear width -> 2 width, halves (a, g): a + a * g; BatchNorm, ReLU, dropout.

    Shapes: (N, width) -> (N, width). BatchNorm is over all N.
    """

    def __init__(self, width: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            a, g = linear(x).chunk(2, dim=-1)
            x = self.dropout(norm(a + a * g).relu())
        return x
