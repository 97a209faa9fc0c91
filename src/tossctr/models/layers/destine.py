"""DESTINE's disentangled self-attention over fields (Xu et al. 2021)."""

from __future__ import annotations

from torch import Tensor, nn


class DestineLayer(nn.Module):
    """(pair + unary weights) v + W x, one head: (N, fields, width) -> (N, fields, width).

    Pair weights use queries and keys centred over the fields; unary weights use a score of the
    single field. No activation or norm follows.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.unary = nn.Linear(width, 1)
        self.residual = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def weights(self, x: Tensor) -> Tensor:
        """(N, fields, fields): pair plus unary weight of field j in the output for field i."""
        q, k = self.query(x), self.key(x)
        q, k = q - q.mean(dim=1, keepdim=True), k - k.mean(dim=1, keepdim=True)
        pair = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        weights: Tensor = pair + self.unary(x).softmax(dim=1).transpose(1, 2)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.weights(x)) @ self.value(x) + self.residual(x)
        return out
