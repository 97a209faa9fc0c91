"""Post-norm Transformer blocks over packed events (BST, Chen et al. 2019, section 2.2)."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tossctr.models.layers.attention import (
    Slots,
    attends_in_place,
    packed_attention,
    padded_attention,
    slots_of,
)
from tossctr.models.layers.attention_cpu import RaggedAttention
from tossctr.models.layers.fused_block import FusedBlock
from tossctr.models.layers.packed import Events, broadcast, segment_softmax, segment_sum


class SelfAttention(nn.Module):
    """Multi-head self-attention within each row, with biases: (M, width) -> (M, width)."""

    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, events: Events, slots: Slots | None) -> Tensor:
        qkv = self.qkv(x)
        q, k, v = qkv.chunk(3, dim=-1)
        dropout_p = self.dropout if self.training else 0.0
        if events.real is not None:
            mixed = padded_attention(
                q, k, v, events, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        elif slots is None:
            mixed = RaggedAttention.apply(  # type: ignore[no-untyped-call]
                qkv, events.offsets, self.num_heads, self.causal
            )
        else:
            mixed = packed_attention(
                q, k, v, slots, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        out: Tensor = self.out(mixed)
        return out

    def of_last(self, x: Tensor, events: Events) -> Tensor:
        """(B, width): what the last event of each row gets, which sees them all, causal or not."""
        width = x.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[events.last], weight[:width], bias[:width])
        kv = F.linear(x, weight[width:], bias[width:])
        q, k, v = (t.view(len(t), self.num_heads, -1) for t in (q, *kv.chunk(2, dim=1)))
        scores = (broadcast(q, events) * k).sum(-1) / k.shape[-1] ** 0.5
        kept = F.dropout(segment_softmax(scores, events), self.dropout, self.training)
        mixed = segment_sum(kept[:, :, None] * v, events)
        out: Tensor = self.out(mixed.flatten(1))
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
        self.use_residual, self.layer_norm = use_residual, layer_norm
        self.attention = SelfAttention(width, num_heads, attention_dropout, causal)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(net_dropout)
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()

    def forward(
        self, x: Tensor, events: Events, slots: Slots | None, *, last_only: bool = False
    ) -> Tensor:
        """With `last_only` the last event of each row alone, (B, width)."""
        if last_only:
            return self._after_attention(x[events.last], self.attention.of_last(x, events))
        if slots is None and events.real is None and self.layer_norm and self.use_residual:
            return self._fused(x, events)
        return self._after_attention(x, self.attention(x, events, slots))

    def _after_attention(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.dropout(mixed)
        x = self.norm1(mixed + x if self.use_residual else mixed)
        fed = self.dropout(self.ffn(x))
        out: Tensor = self.norm2(fed + x if self.use_residual else fed)
        return out

    def _fused(self, x: Tensor, events: Events) -> Tensor:
        attention, norm = self.attention, self.norm1
        assert isinstance(norm, nn.LayerNorm)
        parts = (attention.qkv, attention.out, norm, self.ffn[0], self.ffn[2], self.norm2)
        out: Tensor = FusedBlock.apply(  # type: ignore[no-untyped-call]
            x,
            events.offsets,
            attention.num_heads,
            attention.causal,
            self.dropout.p if self.training else 0.0,
            norm.eps,
            *chain.from_iterable((part.weight, part.bias) for part in parts),
        )
        return out


class Transformer(nn.Module):
    """A stack of blocks: packed (M, width) -> packed (M, width). Arguments as the block's.

    Attributes:
        checkpointing: keep each block's input alone and run the block again in the backward pass.
            Off at first; in float32 on a CPU blocks keep little either way.
        fused: use the CPU's own kernels where they will do. Without them a CPU executes what a GPU
            does, and keeps as much.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        layers: int,
        *,
        attention_dropout: float = 0.0,
        **block: bool | float,
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, attention_dropout
        self.checkpointing, self.fused = False, True
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, attention_dropout=attention_dropout, **block)  # type: ignore[arg-type]
            for _ in range(layers)
        )

    def forward(self, x: Tensor, events: Events, *, last_only: bool = False) -> Tensor:
        """Packed (M, width), or with `last_only` the last event of each row, (B, width).

        `last_only` takes all events to be real.
        """
        slots = None
        in_place = self.fused and attends_in_place(x, self.dropout * self.training)
        if events.real is None and not in_place:
            slots = slots_of(events, self.num_heads)
        for i, block in enumerate(self.blocks):
            # What the last block makes of other events would be for nobody.
            last = last_only and i == len(self.blocks) - 1
            # Few of its products are used twice, so running it again is cheaper than keeping them.
            if (self.checkpointing or last) and torch.is_grad_enabled():
                x = checkpoint(block, x, events, slots, last_only=last, use_reentrant=False)
            else:
                x = block(x, events, slots, last_only=last)
        return x[events.last] if last_only and not self.blocks else x


def execute(model: nn.Module, *, checkpointing: bool, fused: bool = True) -> None:
    """Set how the Transformers in a model are executed; what they compute is the same."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.checkpointing, module.fused = checkpointing, fused
