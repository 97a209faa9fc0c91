"""Attention within each row of packed events on a CPU: no padding, no copies, no T x T matrix.

As in FlashAttention (Dao et al. 2022), scores are computed for one block of queries and keys at a
time, which fits the L1 cache, with a running softmax; the backward pass recomputes them from the
logarithm of each query's sum. Float32; the order of sums does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

TASKS_PER_THREAD = 4  # balances rows of different lengths


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="attention")


def _over_rows(task: Callable[[int, int], None], offsets: Tensor) -> None:
    # Calls task(first, last) for ranges of rows of about equal work, on as many threads as torch.
    threads, rows = torch.get_num_threads(), len(offsets) - 1
    if threads == 1 or rows < 2:
        task(0, rows)
        return
    work = offsets.diff().square().cumsum(0)
    shares = torch.arange(1, threads * TASKS_PER_THREAD) * (work[-1] / (threads * TASKS_PER_THREAD))
    cuts = sorted({0, rows, *torch.searchsorted(work, shares).tolist()})
    for done in [_pool(threads).submit(task, *cut) for cut in pairwise(cuts)]:
        done.result()


def attention_forward(
    qkv: Tensor, offsets: Tensor, num_heads: int, causal: bool
) -> tuple[Tensor, Tensor]:
    """Multi-head attention within each row: float32 on a CPU.

    Args:
        qkv: (M, 3 * D) queries, keys and values side by side, packed.
        offsets: (B + 1,) int64, from 0 to M.
        num_heads: divides D.
        causal: an event sees itself and earlier ones only.

    Returns:
        (M, D), and (M, heads) log2 of each query's sum of exponentials, for the backward pass.
    """
    from tossctr.models.layers.attention_kernels import forward

    width = qkv.shape[1] // 3
    out, log_sum = torch.empty(len(qkv), width), torch.empty(len(qkv), num_heads)
    given = (_flat(qkv), offsets.numpy(), num_heads, width // num_heads, causal)
    results = (_flat(out), log_sum.numpy())
    _over_rows(lambda first, last: forward(*given, *results, first, last), offsets)
    return out, log_sum


def attention_backward(
    qkv: Tensor, offsets: Tensor, causal: bool, out: Tensor, log_sum: Tensor, grad: Tensor
) -> Tensor:
    """The gradient of `qkv`, (M, 3 * D), from that of `out`, (M, D)."""
    from tossctr.models.layers.attention_kernels import backward

    num_heads = log_sum.shape[1]
    d_qkv = torch.empty_like(qkv)
    given = (_flat(qkv), offsets.numpy(), num_heads, out.shape[1] // num_heads, causal)
    results = (_flat(out), log_sum.numpy(), _flat(grad), _flat(d_qkv))
    _over_rows(lambda first, last: backward(*given, *results, first, last), offsets)
    return d_qkv


def _flat(x: Tensor) -> Any:
    return x.detach().contiguous().view(-1).numpy()


class RaggedAttention(torch.autograd.Function):
    """`attention_forward` with its gradient; saves qkv, the output and `log_sum`."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, offsets: Tensor, num_heads: int, causal: bool) -> Tensor:
        out, log_sum = attention_forward(qkv, offsets, num_heads, causal)
        ctx.save_for_backward(qkv, offsets, out, log_sum)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        qkv, offsets, out, log_sum = ctx.saved_tensors
        grad = attention_backward(qkv, offsets, ctx.causal, out, log_sum, grads[0])
        return grad, None, None, None
