"""Post-norm Transformer blocks over packed events (BST, Chen et al. 2019, section 2.2)."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tossctr.models.layers.attention import (
    PaddedGroups,
    packed_attention,
    pad_in_groups,
    padded_attention,
    supports_packed_kernel,
)
from tossctr.models.layers.attention_cpu import RaggedAttention
from tossctr.models.layers.fused_block import FusedBlock
from tossctr.models.layers.packed import Events, broadcast, segment_softmax, segment_sum


class SelfAttention(nn.Module):
    """Multi-head self-attention within each row: packed (M, width) -> (M, width)."""

    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, events: Events, padded: PaddedGroups | None) -> Tensor:
        qkv = self.qkv(x)
        q, k, v = qkv.chunk(3, dim=-1)
        dropout_p = self.dropout if self.training else 0.0
        if events.real is not None:
            mixed = padded_attention(
                q, k, v, events, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        elif padded is None:
            mixed = RaggedAttention.apply(  # type: ignore[no-untyped-call]
                qkv, events.offsets, self.num_heads, self.causal
            )
        else:
            mixed = packed_attention(
                q, k, v, padded, self.num_heads, causal=self.causal, dropout_p=dropout_p
            )
        out: Tensor = self.out(mixed)
        return out

    def attend_last(self, x: Tensor, events: Events) -> Tensor:
        """(B, width): the output for each row's last event, which sees the complete row."""
        width = x.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[events.last], weight[:width], bias[:width])
        kv = F.linear(x, weight[width:], bias[width:])
        q, k, v = (t.view(len(t), self.num_heads, -1) for t in (q, *kv.chunk(2, dim=1)))
        scores = (broadcast(q, events) * k).sum(-1) / k.shape[-1] ** 0.5
        weights = F.dropout(segment_softmax(scores, events), self.dropout, self.training)
        mixed = segment_sum(weights[:, :, None] * v, events)
        out: Tensor = self.out(mixed.flatten(1))
        return out

    def last_attention(self, x: Tensor, events: Events) -> Tensor:
        """(M, heads): attention weights of each row's last event; they sum to 1 over a row."""
        q, k, _ = (t.unflatten(1, (self.num_heads, -1)) for t in self.qkv(x).chunk(3, dim=-1))
        scores = (broadcast(q[events.last], events) * k).sum(-1) / k.shape[-1] ** 0.5
        return segment_softmax(scores, events)


class TransformerBlock(nn.Module):
    """Attention -> dropout -> + input -> LayerNorm -> FFN -> dropout -> + its input -> LayerNorm.

    Shapes: packed (M, width) -> (M, width). `use_residual=False` and `layer_norm=False` omit the
    additions and the norms.
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

    def forward(
        self, x: Tensor, events: Events, padded: PaddedGroups | None, *, last_only: bool = False
    ) -> Tensor:
        """Packed (M, width), or with `last_only` the last event of each row, (B, width)."""
        if last_only:
            return self._after_attention(x[events.last], self.attention.attend_last(x, events))
        norm = self.norm1 if self.use_residual else None
        if padded is None and events.real is None and isinstance(norm, nn.LayerNorm):
            return self._fused(x, events, norm)
        return self._after_attention(x, self.attention(x, events, padded))

    def _after_attention(self, x: Tensor, mixed: Tensor) -> Tensor:
        mixed = self.dropout(mixed)
        x = self.norm1(mixed + x if self.use_residual else mixed)
        fed = self.dropout(self.ffn(x))
        out: Tensor = self.norm2(fed + x if self.use_residual else fed)
        return out

    def _fused(self, x: Tensor, events: Events, norm: nn.LayerNorm) -> Tensor:
        attention = self.attention
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
    """A stack of blocks: packed (M, width) -> packed (M, width). Arguments are those of the block.

    Attributes:
        checkpointing: save only each block's input and recompute the block in the backward pass.
            In float32 on a CPU, blocks save little either way.
        fused: use the CPU kernels where possible. False executes, and saves, what a GPU does.
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

        `last_only` requires events without padding.
        """
        padded = None
        packed = self.fused and supports_packed_kernel(x, self.dropout * self.training)
        if events.real is None and not packed:
            padded = pad_in_groups(events, self.num_heads)
        for i, block in enumerate(self.blocks):
            last = last_only and i == len(self.blocks) - 1
            # The last block of `last_only` is cheap to recompute compared with what it would save.
            if (self.checkpointing or last) and torch.is_grad_enabled():
                x = checkpoint(block, x, events, padded, last_only=last, use_reentrant=False)
            else:
                x = block(x, events, padded, last_only=last)
        return x[events.last] if last_only and not self.blocks else x


def set_execution(model: nn.Module, *, checkpointing: bool, fused: bool = True) -> None:
    """Set how a model's Transformers are executed; their output does not change."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.checkpointing, module.fused = checkpointing, fused
