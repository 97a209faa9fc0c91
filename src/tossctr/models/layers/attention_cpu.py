"""Attention within each row of packed events on a CPU: no padding, no copies, no T x T matrix.

As in FlashAttention (Dao et al. 2022), scores are computed for one block of queries and keys at a
time, which fits the L1 cache, with a running softmax; the backward pass recomputes them from the
logarithm of each query's sum. Float32; the order of sums does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from tossctr.models.layers.vectors import (
    LANES,
    dot,
    exp2_sum,
    matrix_tile,
    row_max,
    scaled_copy,
    softmax_gradient,
    transpose_8,
)

QUERIES, KEYS = 64, 96  # a block of scores, 24 KB: the fastest size measured
PANEL = 16  # keys that are adjacent in memory while scores are computed
TASKS_PER_THREAD = 4  # balances rows of different lengths

# Cached on disk; other threads run while a kernel does.
_compiled: Any = njit(nogil=True, cache=True, error_model="numpy")

_score_tile = matrix_tile(4, PANEL // LANES, add=False)
_add_8 = matrix_tile(4, 1, add=True)
_add_16 = matrix_tile(4, 2, add=True)
_add_24 = matrix_tile(4, 3, add=True)


@_compiled
def _round_up(n, step):  # type: ignore[no-untyped-def]
    return (n + step - 1) // step * step


@_compiled
def _take_rows(out, x, stride, start, count, rows, first, head_width, width, factor):  # type: ignore[no-untyped-def]
    # x[start : start + count, first : first + head_width] * factor as rows of `width`, zeros beyond
    vectors = head_width // LANES * LANES
    for i in range(count):
        source, target = (start + i) * stride + first, i * width
        if vectors > 0:
            scaled_copy(out, target, x, source, vectors, factor)
        for d in range(vectors, head_width):
            out[target + d] = x[source + d] * factor
        for d in range(head_width, width):
            out[target + d] = 0
    for i in range(count * width, rows * width):
        out[i] = 0


@_compiled
def _put_rows(out, stride, start, count, first, x, head_width, width, factor):  # type: ignore[no-untyped-def]
    # out[start : start + count, first : first + head_width] = rows of x * factor
    vectors = head_width // LANES * LANES
    for i in range(count):
        source, target = i * width, (start + i) * stride + first
        if vectors > 0:
            scaled_copy(out, target, x, source, vectors, factor)
        for d in range(vectors, head_width):
            out[target + d] = x[source + d] * factor


@_compiled
def _to_panels(out, x, rows, width):  # type: ignore[no-untyped-def]
    # Transposes 16 rows at a time: (rows, width) -> (rows / 16, width, 16)
    for i in range(0, rows, LANES):
        panel = i // PANEL * PANEL * width + i % PANEL
        for d in range(0, width, LANES):
            transpose_8(out, panel + d * PANEL, PANEL, x, i * width + d, width)


@_compiled
def _scores(out, q, queries, panels, first_key, keys, width):  # type: ignore[no-untyped-def]
    # out (QUERIES, KEYS) = q . k for keys first_key.., in complete panels
    for j in range(0, keys, PANEL):
        panel = (first_key + j) * width
        for i in range(0, queries, 4):
            _score_tile(
                out, i * KEYS + j, KEYS, q, i * width, width, 1, panels, panel, PANEL, width
            )


@_compiled
def _add_product(c, c0, rows, a, a_row, a_step, b, b0, depth, width):  # type: ignore[no-untyped-def]
    # c (rows, width) += a (rows, depth) @ b (depth, width)
    for i in range(0, rows, 4):
        column = 0
        while width - column >= 24 and width - column != 32:
            _add_24(c, c0 + i * width + column, width, a, i * a_row, a_row, a_step,
                    b, b0 + column, width, depth)  # fmt: skip
            column += 24
        while width - column >= 16:
            _add_16(c, c0 + i * width + column, width, a, i * a_row, a_row, a_step,
                    b, b0 + column, width, depth)  # fmt: skip
            column += 16
        if width > column:
            _add_8(c, c0 + i * width + column, width, a, i * a_row, a_row, a_step,
                   b, b0 + column, width, depth)  # fmt: skip


@_compiled
def _block_later_keys(scores, query, queries, key, keys):  # type: ignore[no-untyped-def]
    # Masks keys after their query; both are counted from the row's start.
    for i in range(queries):
        for j in range(max(0, query + i + 1 - key), keys):
            scores[i * KEYS + j] = -np.inf


@_compiled
def _longest(offsets, first, last):  # type: ignore[no-untyped-def]
    longest = 0
    for row in range(first, last):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@_compiled
def _forward(qkv, offsets, num_heads, head_width, causal, out, log_sum, first, last):  # type: ignore[no-untyped-def]
    # Rows first..last of qkv (M, 3 * heads * head_width) to out (M, heads * head_width), both flat,
    # and to log_sum (M, heads) log2 of each query's sum of exponentials.
    model_width = num_heads * head_width
    stride = 3 * model_width
    width = _round_up(head_width, LANES)
    size = _round_up(_longest(offsets, first, last), PANEL) * width
    one = np.float32(1)
    scale = np.float32(1 / math.sqrt(head_width) / math.log(2))  # exponentials are powers of 2
    key_panels = np.empty(size, np.float32)
    values = np.empty(size, np.float32)
    queries = np.empty(QUERIES * width, np.float32)
    mixed = np.empty(QUERIES * width, np.float32)
    scores = np.empty(QUERIES * KEYS, np.float32)
    top = np.empty(QUERIES, np.float32)
    total = np.empty(QUERIES, np.float32)
    for row in range(first, last):
        start, count = offsets[row], offsets[row + 1] - offsets[row]
        padded = _round_up(count, PANEL)
        for head in range(num_heads):
            q = head * head_width
            k, v = q + model_width, q + 2 * model_width
            _take_rows(values, qkv, stride, start, count, padded, k, head_width, width, one)
            _to_panels(key_panels, values, padded, width)
            _take_rows(values, qkv, stride, start, count, count, v, head_width, width, one)
            for i0 in range(0, count, QUERIES):
                n = min(QUERIES, count - i0)
                n4 = _round_up(n, 4)
                at = start + i0
                _take_rows(queries, qkv, stride, at, n, n4, q, head_width, width, scale)
                mixed[: n4 * width] = 0
                top[:] = -np.inf
                total[:] = 0
                end = min(count, i0 + n) if causal else count
                for j0 in range(0, end, KEYS):
                    m = min(KEYS, end - j0)
                    whole = _round_up(m, PANEL)
                    _scores(scores, queries, n4, key_panels, j0, whole, width)
                    if causal:
                        _block_later_keys(scores, i0, n, j0, m)
                    for i in range(n4):
                        for j in range(m, whole):
                            scores[i * KEYS + j] = -np.inf
                        new_top = row_max(scores, i * KEYS, whole)
                        if new_top > top[i]:
                            if j0 > 0:
                                factor = np.float32(2) ** (top[i] - new_top)
                                total[i] *= factor
                                scaled_copy(mixed, i * width, mixed, i * width, width, factor)
                            top[i] = new_top
                        total[i] += exp2_sum(scores, i * KEYS, whole, top[i])
                    _add_product(mixed, 0, n4, scores, KEYS, 1, values, j0 * width, m, width)
                for i in range(n):
                    scaled_copy(mixed, i * width, mixed, i * width, width, one / total[i])
                    log_sum[at + i, head] = top[i] + np.log2(total[i])
                _put_rows(out, model_width, at, n, q, mixed, head_width, width, one)


@_compiled
def _backward(  # type: ignore[no-untyped-def]
    qkv, offsets, num_heads, head_width, causal, out, log_sum, grad, d_qkv, first, last
):
    model_width = num_heads * head_width
    stride = 3 * model_width
    width = _round_up(head_width, LANES)
    size = _round_up(_longest(offsets, first, last), PANEL) * width
    one = np.float32(1)
    scale = np.float32(1 / math.sqrt(head_width))
    scale_2 = np.float32(1 / math.sqrt(head_width) / math.log(2))
    ln_2 = np.float32(math.log(2))
    key_panels = np.empty(size, np.float32)
    value_panels = np.empty(size, np.float32)
    keys = np.empty(size, np.float32)
    key_grads = np.empty(size, np.float32)
    value_grads = np.empty(size, np.float32)
    queries = np.empty(QUERIES * width, np.float32)
    query_grads = np.empty(QUERIES * width, np.float32)
    grads = np.empty(QUERIES * width, np.float32)
    mixed = np.empty(QUERIES * width, np.float32)
    mean = np.empty(QUERIES, np.float32)  # of each query's gradients, by its weights
    weights = np.empty(QUERIES * KEYS, np.float32)
    score_grads = np.empty(QUERIES * KEYS, np.float32)
    for row in range(first, last):
        start, count = offsets[row], offsets[row + 1] - offsets[row]
        padded = _round_up(count, PANEL)
        for head in range(num_heads):
            q = head * head_width
            k, v = q + model_width, q + 2 * model_width
            _take_rows(keys, qkv, stride, start, count, padded, v, head_width, width, one)
            _to_panels(value_panels, keys, padded, width)
            _take_rows(keys, qkv, stride, start, count, padded, k, head_width, width, one)
            _to_panels(key_panels, keys, padded, width)
            key_grads[: padded * width] = 0
            value_grads[: padded * width] = 0
            for i0 in range(0, count, QUERIES):
                n = min(QUERIES, count - i0)
                n4 = _round_up(n, 4)
                at = start + i0
                _take_rows(queries, qkv, stride, at, n, n4, q, head_width, width, scale_2)
                _take_rows(grads, grad, model_width, at, n, n4, q, head_width, width, one)
                _take_rows(mixed, out, model_width, at, n, n4, q, head_width, width, one)
                for i in range(n):
                    mean[i] = dot(grads, i * width, mixed, i * width, width)
                query_grads[: n4 * width] = 0
                end = min(count, i0 + n) if causal else count
                for j0 in range(0, end, KEYS):
                    m = min(KEYS, end - j0)
                    m4, whole = _round_up(m, 4), _round_up(m, PANEL)
                    j = j0 * width
                    _scores(weights, queries, n4, key_panels, j0, whole, width)
                    _scores(score_grads, grads, n4, value_panels, j0, whole, width)
                    if causal:
                        _block_later_keys(weights, i0, n, j0, m)
                    for i in range(n):
                        softmax_gradient(
                            weights, score_grads, i * KEYS, whole, log_sum[at + i, head], mean[i]
                        )
                    _add_product(value_grads, j, m4, weights, 1, KEYS, grads, 0, n, width)
                    _add_product(key_grads, j, m4, score_grads, 1, KEYS, queries, 0, n, width)
                    _add_product(query_grads, 0, n4, score_grads, KEYS, 1, keys, j, m, width)
                _put_rows(d_qkv, stride, at, n, q, query_grads, head_width, width, scale)
            # The queries were scaled for base-2 exponentials; ln 2 undoes that for the keys.
            _put_rows(d_qkv, stride, start, count, k, key_grads, head_width, width, ln_2)
            _put_rows(d_qkv, stride, start, count, v, value_grads, head_width, width, one)


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
    width = qkv.shape[1] // 3
    out, log_sum = torch.empty(len(qkv), width), torch.empty(len(qkv), num_heads)
    given = (_flat(qkv), offsets.numpy(), num_heads, width // num_heads, causal)
    results = (_flat(out), log_sum.numpy())
    _over_rows(lambda first, last: _forward(*given, *results, first, last), offsets)
    return out, log_sum


def attention_backward(
    qkv: Tensor, offsets: Tensor, causal: bool, out: Tensor, log_sum: Tensor, grad: Tensor
) -> Tensor:
    """The gradient of `qkv`, (M, 3 * D), from that of `out`, (M, D)."""
    num_heads = log_sum.shape[1]
    d_qkv = torch.empty_like(qkv)
    given = (_flat(qkv), offsets.numpy(), num_heads, out.shape[1] // num_heads, causal)
    results = (_flat(out), log_sum.numpy(), _flat(grad), _flat(d_qkv))
    _over_rows(lambda first, last: _backward(*given, *results, first, last), offsets)
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
