"""Vectorised inner loops of attention on a CPU, as Numba intrinsics.

Unlike LLVM's auto-vectoriser, they keep a block of a matrix product in registers. All take flat
float32 arrays and offsets, and use vectors of 8 (AVX; LLVM splits or pairs them for other CPUs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic as _intrinsic

from tossctr.models.layers.emit import LANES, Emit, Value

FLOATS = types.Array(types.float32, 1, "C")
intrinsic: Any = _intrinsic  # untyped: callers do not pass the typing context


def matrix_tile(rows: int, vectors: int, *, add: bool) -> Any:
    """A Numba function: the product of `rows` rows of A and 8 * `vectors` columns of B.

        tile(c, c0, c_row, a, a0, a_row, a_step, b, b0, b_step, depth)
        c[c0 + r*c_row + j] (+)= sum over k < depth of
            a[a0 + r*a_row + k*a_step] * b[b0 + k*b_step + j]

    The sums stay in registers: rows * vectors + vectors + 1 of them should fit (16 with AVX2).
    """

    @intrinsic
    def tile(typing, c, c0, c_row, a, a0, a_row, a_step, b, b0, b_step, depth):  # type: ignore[no-untyped-def]
        n = types.int64
        signature = types.void(FLOATS, n, n, FLOATS, n, n, n, FLOATS, n, n, n)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
            emit = Emit(context, builder, signature, args)
            c, c0, c_row, a, a0, a_row, a_step, b, b0, b_step, depth = emit.args
            targets = [
                emit.at(c, c0, emit.times(c_row, r), LANES * v)
                for r in range(rows)
                for v in range(vectors)
            ]
            sources = [emit.at(a, a0, emit.times(a_row, r)) for r in range(rows)]
            initial = [emit.load(t) if add else emit.constant(0.0) for t in targets]

            def body(k: Value, sums: Sequence[Value]) -> Sequence[Value]:
                row = emit.at(b, b0, builder.mul(k, b_step))
                columns = [emit.load(emit.at(row, LANES * v)) for v in range(vectors)]
                step = builder.mul(k, a_step)
                after = []
                for r, source in enumerate(sources):
                    factor = emit.splat(builder.load(emit.at(source, step)))
                    after += [
                        emit.fma(factor, column, sums[r * vectors + v])
                        for v, column in enumerate(columns)
                    ]
                return after

            for total, target in zip(emit.loop(depth, 1, initial, body), targets, strict=True):
                emit.store(total, target)
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def scaled_copy(typing, out, out0, x, x0, count, factor):  # type: ignore[no-untyped-def]
    """out[out0 + i] = x[x0 + i] * factor for i < count, a multiple of 8; may be in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        out, out0, x, x0, count, factor = emit.args
        target, source, factor = emit.at(out, out0), emit.at(x, x0), emit.splat(factor)

        def body(i: Value, _: Sequence[Value]) -> Sequence[Value]:
            scaled = builder.fmul(emit.load(emit.at(source, i)), factor)
            emit.store(scaled, emit.at(target, i))
            return []

        emit.loop(count, LANES, [], body)
        return context.get_dummy_value()

    n = types.int64
    return types.void(FLOATS, n, FLOATS, n, n, types.float32), generate


@intrinsic
def transpose_8(typing, out, out0, out_row, x, x0, x_row):  # type: ignore[no-untyped-def]
    """out[out0 + i*out_row + j] = x[x0 + j*x_row + i] for i and j < 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        out, out0, out_row, x, x0, x_row = emit.args
        rows = [emit.load(emit.at(x, x0, emit.times(x_row, r))) for r in range(LANES)]
        for step in (4, 2, 1):  # swap the off-diagonal blocks of this size
            for r in range(LANES):
                if r & step:
                    continue
                pair = rows[r], rows[r + step]
                upper = [c if not c & step else LANES + c - step for c in range(LANES)]
                lower = [c + step if not c & step else LANES + c for c in range(LANES)]
                rows[r], rows[r + step] = (emit.shuffle(*pair, lanes) for lanes in (upper, lower))
        for r, row in enumerate(rows):
            emit.store(row, emit.at(out, out0, emit.times(out_row, r)))
        return context.get_dummy_value()

    n = types.int64
    return types.void(FLOATS, n, n, FLOATS, n, n), generate


@intrinsic
def dot(typing, x, x0, y, y0, count):  # type: ignore[no-untyped-def]
    """The sum of x[x0 + i] * y[y0 + i] for i < count, a multiple of 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        x, x0, y, y0, count = emit.args
        a, b = emit.at(x, x0), emit.at(y, y0)

        def body(i: Value, total: Sequence[Value]) -> Sequence[Value]:
            return [emit.fma(emit.load(emit.at(a, i)), emit.load(emit.at(b, i)), total[0])]

        (total,) = emit.loop(count, LANES, [emit.constant(0.0)], body)
        return emit.reduce(builder.fadd, total)

    n = types.int64
    return types.float32(FLOATS, n, FLOATS, n, n), generate


@intrinsic
def row_max(typing, x, x0, count):  # type: ignore[no-untyped-def]
    """The largest of x[x0 : x0 + count], count a multiple of 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        x, x0, count = emit.args
        start = emit.at(x, x0)
        (top,) = emit.loop(
            count,
            LANES,
            [emit.load(start)],
            lambda i, top: [emit.larger(top[0], emit.load(emit.at(start, i)))],
        )
        return emit.reduce(emit.larger, top)

    return types.float32(FLOATS, types.int64, types.int64), generate


@intrinsic
def exp2_sum(typing, x, x0, count, shift):  # type: ignore[no-untyped-def]
    """x <- 2**(x - shift) for x[x0 : x0 + count], count a multiple of 8; returns their sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        x, x0, count, shift = emit.args
        start, shift = emit.at(x, x0), emit.splat(shift)

        def body(i: Value, total: Sequence[Value]) -> Sequence[Value]:
            place = emit.at(start, i)
            power = emit.exp2(builder.fsub(emit.load(place), shift))
            emit.store(power, place)
            return [builder.fadd(total[0], power)]

        (total,) = emit.loop(count, LANES, [emit.constant(0.0)], body)
        return emit.reduce(builder.fadd, total)

    return types.float32(FLOATS, types.int64, types.int64, types.float32), generate


@intrinsic
def softmax_gradient(typing, x, g, at, count, shift, mean):  # type: ignore[no-untyped-def]
    """From offset `at`: x <- p = 2**(x - shift), g <- p * (g - mean); count a multiple of 8.

    Replaces scores by attention weights, and gradients of the weights by gradients of the scores.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Value:
        emit = Emit(context, builder, signature, args)
        x, g, at, count, shift, mean = emit.args
        scores, gradients = emit.at(x, at), emit.at(g, at)
        shift, mean = emit.splat(shift), emit.splat(mean)

        def body(i: Value, _: Sequence[Value]) -> Sequence[Value]:
            place, gradient = emit.at(scores, i), emit.at(gradients, i)
            power = emit.exp2(builder.fsub(emit.load(place), shift))
            emit.store(power, place)
            emit.store(builder.fmul(power, builder.fsub(emit.load(gradient), mean)), gradient)
            return []

        emit.loop(count, LANES, [], body)
        return context.get_dummy_value()

    kinds = (FLOATS, FLOATS, types.int64, types.int64, types.float32, types.float32)
    return types.void(*kinds), generate
