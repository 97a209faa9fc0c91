"""The compiled loops of attention on a CPU, over blocks of queries and keys.

Numba takes half a second to import: `attention_cpu` imports this module when it first computes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from tossctr.models.layers.emit import LANES
from tossctr.models.layers.vectors import (
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
def forward(qkv, offsets, num_heads, head_width, causal, out, log_sum, first, last):  # type: ignore[no-untyped-def]
    """Rows first..last of qkv (M, 3 * heads * head_width) to out (M, heads * head_width), both
    flat, and to log_sum (M, heads) log2 of each query's sum of exponentials."""
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
def backward(  # type: ignore[no-untyped-def]
    qkv, offsets, num_heads, head_width, causal, out, log_sum, grad, d_qkv, first, last
):
    """The gradient of rows first..last of qkv from that of out, both flat."""
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
