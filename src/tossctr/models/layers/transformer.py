"""Post-norm Transformer blocks over packed events (BST, Chen et al. 2019, section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn

from tossctr.models.layers.attention import Slots, packed_attention, padded_attention, slots_of
from tossctr.models.layers.packed import Events, broadcast, segment_softmax


class SelfAttention(nn.Module):
    """Multi-head self-attention within each row, with biases: (M, width) -> (M, width)."""

    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, events: Events, slots: Slots | None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        dropout_p = self.dropout if self.training else 0.0
        if slots is None:
            mixed = padded_attention(
                q, k, v, events, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        else:
            mixed = packed_attention(
                q, k, v, slots, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        out: Tensor = self.out(mixed)
        return out

    def last_weights(self, x: Tensor, events: Events) -> Tensor:
        """(M, heads): how much the last event of each row attends to each of its row."""
        q, k, _ = (t.unflatten(1, (self.num_heads, -1)) for t in self.qkv(x).chunk(3, dim=-1))
        scores = (broadcast(q[events.last], events) * k).sum(-1) / k.shape[-1] ** 0.5
        return segment_softmax(scores, events)


class TransformerBlock(nn.Module):
    """Attention -> dropout -> + input -> LayerNorm -> FFN -> dropout -> + its input -> LayerNorm.

    Shapes: (M, width) -> (M, width). `use_residual` and `layer_norm` switch the additions and
    the norms off.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        attention_dropout: float = 0.0,
        net_dropout: float = 0.0,
        causal: bool = False,
        layer_norm: bool = True,
        use_residual: bool = True,
    ) -> None:
        super().__init__()
        self.use_residual = use_residual
        self.attention = SelfAttention(width, num_heads, attention_dropout, causal)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(net_dropout)
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()

    def forward(self, x: Tensor, events: Events, slots: Slots | None) -> Tensor:
        mixed = self.dropout(self.attention(x, events, slots))
        x = self.norm1(mixed + x if self.use_residual else mixed)
        fed = self.dropout(self.ffn(x))
        out: Tensor = self.norm2(fed + x if self.use_residual else fed)
        return out


class Transformer(nn.Module):
    """A stack of blocks: packed (M, width) -> packed (M, width). Arguments as the block's."""

    def __init__(self, width: int, num_heads: int, layers: int, **block: bool | float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, **block)  # type: ignore[arg-type]
            for _ in range(layers)
        )

    def forward(self, x: Tensor, events: Events) -> Tensor:
        slots = slots_of(events, self.num_heads) if events.real is None else None
        for block in self.blocks:
            x = block(x, events, slots)
        return x
