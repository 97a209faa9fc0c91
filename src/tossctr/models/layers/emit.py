"""Emits LLVM's vector instructions for Numba intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

LANES = 8
_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
Value = Any  # an ir.Value; llvmlite ships no types


def _exp2_polynomial(degree: int = 6) -> list[float]:
    # 2**f for f in [-0.5, 0.5], fitted at Chebyshev nodes; error 1e-8, below float32's rounding.
    nodes = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    fit = np.polynomial.Polynomial.fit(nodes, 2.0**nodes, degree, domain=[-1, 1], window=[-1, 1])
    return [float(np.float32(c)) for c in fit.coef]


EXP2 = _exp2_polynomial()


class Emit:
    """Emits LLVM vector instructions."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Value]) -> None:
        self.builder = builder
        self.args = [
            context.make_array(kind)(context, builder, arg).data
            if isinstance(kind, types.Array)
            else arg
            for kind, arg in zip(signature.args, args, strict=True)
        ]

    def at(self, pointer: Value, *offsets: Value | int) -> Value:
        for offset in offsets:
            index = ir.Constant(_LONG, offset) if isinstance(offset, int) else offset
            pointer = self.builder.gep(pointer, [index])
        return pointer

    def times(self, a: Value, n: int) -> Value:
        return self.builder.mul(a, ir.Constant(_LONG, n))

    def load(self, pointer: Value) -> Value:
        return self.builder.load(self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def store(self, value: Value, pointer: Value) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def constant(self, value: float) -> Value:
        return ir.Constant(_VECTOR, [value] * LANES)

    def splat(self, value: Value) -> Value:
        one = self.builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INT, 0)
        )
        return self.shuffle(one, ir.Constant(_VECTOR, ir.Undefined), [0] * LANES)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        return self.builder.shuffle_vector(a, b, ir.Constant(_INTS, lanes))

    def call(self, name: str, *args: Value) -> Value:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
        insert: Any = cgutils.get_or_insert_function
        function = insert(self.builder.module, kind, f"llvm.{name}.v{LANES}f32")
        return self.builder.call(function, args)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self.call("fma", a, b, c)

    def larger(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def exp2(self, x: Value) -> Value:
        # 2**x = 2**n * 2**f, with n added to the exponent bits. Clipped at 2**-125, because
        # subnormal numbers are slow.
        x = self.larger(x, self.constant(-125.0))
        n = self.call("rint", x)
        f = self.builder.fsub(x, n)
        power = self.constant(EXP2[-1])
        for coefficient in reversed(EXP2[:-1]):
            power = self.fma(power, f, self.constant(coefficient))
        shifted = self.builder.shl(self.builder.fptosi(n, _INTS), ir.Constant(_INTS, [23] * LANES))
        bits = self.builder.add(self.builder.bitcast(power, _INTS), shifted)
        return self.builder.bitcast(bits, _VECTOR)

    def reduce(self, combine: Callable[[Value, Value], Value], x: Value) -> Value:
        lanes = [self.builder.extract_element(x, ir.Constant(_INT, i)) for i in range(LANES)]
        while len(lanes) > 1:
            lanes = [combine(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    def loop(
        self,
        count: Value,
        step: int,
        initial: Sequence[Value],
        body: Callable[[Value, Sequence[Value]], Sequence[Value]],
    ) -> Sequence[Value]:
        """`for i in range(0, count, step): carried = body(i, carried)`; runs at least once."""
        b = self.builder
        before, inside = b.basic_block, b.append_basic_block("loop")
        b.branch(inside)
        b.position_at_end(inside)
        i = b.phi(_LONG)
        carried = [b.phi(value.type) for value in initial]
        after = body(i, carried)
        following = b.add(i, ir.Constant(_LONG, step))
        for phi, first, later in zip(
            [i, *carried], [ir.Constant(_LONG, 0), *initial], [following, *after], strict=True
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(later, inside)
        end = b.append_basic_block("end")
        b.cbranch(b.icmp_signed("<", following, count), inside, end)
        b.position_at_end(end)
        return after
