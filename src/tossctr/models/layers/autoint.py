"""AutoInt's interacting layer (Song et al. 2019, section 4.4)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class AutoIntLayer(nn.Module):
    """Self-attention over fields, residual, LayerNorm, ReLU.

    Shapes: (N, fields, width) -> (N, fields, attention_width), by default the same width.

    Args:
        width: of each field's embedding.
        attention_width: of queries, keys and values, all heads together; a multiple of `num_heads`.
        dropout: on the attention weights.
        use_residual: add the input, through a linear layer if the widths differ.
        use_scale: divide the scores by sqrt(head width).
        layer_norm: added by the public implementation, not in the paper.
    """

    def __init__(
        self,
        width: int,
        attention_width: int | None = None,
        num_heads: int = 1,
        dropout: float = 0.0,
        *,
        use_residual: bool = True,
        use_scale: bool = True,
        layer_norm: bool = True,
    ) -> None:
        super().__init__()
        out = attention_width or width
        self.num_heads, self.dropout, self.use_residual = num_heads, dropout, use_residual
        self.scale = None if use_scale else 1.0
        self.query = nn.Linear(width, out, bias=False)
        self.key = nn.Linear(width, out, bias=False)
        self.value = nn.Linear(width, out, bias=False)
        self.residual = nn.Identity() if width == out else nn.Linear(width, out, bias=False)
        self.norm = nn.LayerNorm(out) if layer_norm else nn.Identity()

    def _qkv(self, x: Tensor) -> list[Tensor]:
        return [
            linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        ]

    def weights(self, x: Tensor) -> Tensor:
        """(N, fields, fields): attention of field i to field j, averaged over heads."""
        q, k, _ = self._qkv(x)
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        weights: Tensor = (q @ k.transpose(2, 3) * scale).softmax(dim=-1).mean(dim=1)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._qkv(x)
        dropout_p = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=self.scale)
        mixed = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self.norm(mixed + self.residual(x) if self.use_residual else mixed)
        return out.relu()
