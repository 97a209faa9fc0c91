"""A post-norm Transformer block as one autograd function, for float32 on a CPU.

The same arithmetic as `TransformerBlock`, with an explicit backward pass: operations are in place,
and only the block's input, the output of attention and the sum before the first norm are saved
(three vectors per event); the rest is recomputed, each by one matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tossctr.models.layers.attention_cpu import attention_backward, attention_forward

SLOPE = 0.01  # of LeakyReLU, torch's default
_norm_backward = torch.ops.aten.native_layer_norm_backward
_leaky_backward = torch.ops.aten.leaky_relu_backward
Keep = Tensor | None  # (M, width) bool, False where dropout sets zero; None without dropout


def _draw(x: Tensor, dropout: float) -> Keep:
    return torch.rand(x.shape) >= dropout if dropout > 0 else None


def _drop(x: Tensor, keep: Keep, dropout: float) -> Tensor:
    """A new tensor, or `x` itself without dropout."""
    return x if keep is None else (x * keep).div_(1 - dropout)


def _weight_and_bias(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return grad.t() @ x, grad.sum(0)


class FusedBlock(torch.autograd.Function):
    """Packed (M, width) -> (M, width), with row boundaries `offsets` (B + 1,).

    `parameters` are weight and bias of qkv, out, norm1, the two feed-forward layers and norm2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        offsets: Tensor,
        num_heads: int,
        causal: bool,
        dropout: float,
        eps: float,
        *parameters: Tensor,
    ) -> Tensor:
        w_qkv, b_qkv, w_out, b_out, g1, c1, w1, b1, w2, b2, g2, c2 = parameters
        width = x.shape[1:]
        qkv = F.linear(x, w_qkv, b_qkv)
        mixed, log_sum = attention_forward(qkv, offsets, num_heads, causal)
        keep1, keep2 = _draw(x, dropout), _draw(x, dropout)
        z1 = _drop(F.linear(mixed, w_out, b_out), keep1, dropout).add_(x)
        x1, mean1, scale1 = torch.native_layer_norm(z1, width, g1, c1, eps)
        hidden = F.leaky_relu_(F.linear(x1, w1, b1), SLOPE)
        z2 = _drop(F.linear(hidden, w2, b2), keep2, dropout).add_(x1)
        out, mean2, scale2 = torch.native_layer_norm(z2, width, g2, c2, eps)
        ctx.save_for_backward(
            x, mixed, log_sum, z1, mean1, scale1, mean2, scale2, keep1, keep2, offsets, *parameters
        )
        ctx.causal, ctx.dropout, ctx.eps = causal, dropout, eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mixed, log_sum, z1, mean1, scale1, mean2, scale2, keep1, keep2, offsets, *rest = (
            ctx.saved_tensors
        )
        w_qkv, b_qkv, w_out, _, g1, c1, w1, b1, w2, b2, g2, c2 = rest
        width, dropout, all_three = x.shape[1:], ctx.dropout, [True] * 3
        x1 = torch.native_layer_norm(z1, width, g1, c1, ctx.eps)[0]
        hidden = F.leaky_relu_(F.linear(x1, w1, b1), SLOPE)
        z2 = _drop(F.linear(hidden, w2, b2), keep2, dropout).add_(x1)

        grad, dg2, dc2 = _norm_backward(
            grads[0].contiguous(), z2, width, mean2, scale2, g2, c2, all_three
        )
        fed = _drop(grad, keep2, dropout)
        dw2, db2 = _weight_and_bias(fed, hidden)
        d_hidden = _leaky_backward(fed @ w2, hidden, SLOPE, True)
        dw1, db1 = _weight_and_bias(d_hidden, x1)
        grad.addmm_(d_hidden, w1)
        grad, dg1, dc1 = _norm_backward(grad, z1, width, mean1, scale1, g1, c1, all_three)

        attended = _drop(grad, keep1, dropout)
        dw_out, db_out = _weight_and_bias(attended, mixed)
        d_mixed = attended @ w_out
        qkv = F.linear(x, w_qkv, b_qkv)
        d_qkv = attention_backward(qkv, offsets, ctx.causal, mixed, log_sum, d_mixed)
        dw_qkv, db_qkv = _weight_and_bias(d_qkv, x)
        grad.addmm_(d_qkv, w_qkv)
        return (
            grad, None, None, None, None, None,
            dw_qkv, db_qkv, dw_out, db_out, dg1, dc1, dw1, db1, dw2, db2, dg2, dc2,
        )  # fmt: skip
