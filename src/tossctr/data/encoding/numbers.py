"""Numeric columns: conversion to floats, statistics for scaling, and scaling."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.plain_types import to_single_values
from tossctr.data.where import Where

Array = NDArray[Any]

FLOAT32_MAX = float(np.finfo(np.float32).max)


def as_floats(array: pa.Array, column: str, where: Where, na: Collection[str] = ()) -> Array:
    """A numeric column as (N,) float32 or float64, NaN if missing (null, NaN, or a number in `na`).

    Integers, decimals and Booleans become float64; timestamps and dates seconds since 1970, times
    of day seconds since midnight, durations seconds.

    Raises:
        UserError: the column is not numeric.
    """
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    dtype = array.type
    if pa.types.is_temporal(dtype):
        micros = array.cast(_in_microseconds(dtype), safe=False).cast(pa.int64())
        array = pc.divide(micros.cast(pa.float64(), safe=False), 1e6)
    elif pa.types.is_boolean(dtype):
        array = array.cast(pa.uint8()).cast(pa.float64())
    elif pa.types.is_integer(dtype) or pa.types.is_decimal(dtype) or pa.types.is_float16(dtype):
        array = array.cast(pa.float64(), safe=False)
    elif pa.types.is_null(dtype):
        array = array.cast(pa.float64())
    elif not pa.types.is_floating(dtype):
        raise where.error(
            f"holds {dtype}, not numbers", column, None, None, _other_than_numbers(dtype)
        )
    if array.null_count:
        array = pc.fill_null(array, float("nan"))
    values: Array = array.to_numpy(zero_copy_only=False)
    markers = _markers(na, values.dtype)
    return np.where(np.isin(values, markers), np.nan, values) if len(markers) else values


def _markers(na: Collection[str], dtype: np.dtype[Any]) -> Array:
    """The markers of missing values that are finite numbers, in the column's dtype."""
    numbers = []
    for text in na:
        try:
            numbers.append(float(text))
        except ValueError:
            continue
    with np.errstate(over="ignore"):
        markers: Array = np.array(numbers, np.float64).astype(dtype)
    finite: Array = markers[np.isfinite(markers)]
    return finite


def _in_microseconds(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_time(dtype):
        return pa.time64("us")
    if pa.types.is_duration(dtype):
        return pa.duration("us")
    return pa.timestamp("us", getattr(dtype, "tz", None))


def _other_than_numbers(dtype: pa.DataType) -> str:
    """The remedy for a column of this type that is declared as numeric."""
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return "write it as numbers or timestamps, or declare it as type: categorical"
    if pa.types.is_nested(dtype):
        return to_single_values(dtype)
    return "write it as numbers"


def refuse_infinite(values: Array, column: str, where: Where) -> None:
    """Check that no value is infinite.

    Raises:
        UserError: one is.
    """
    bad = np.isinf(values)
    if bad.any():
        at = int(bad.argmax())
        raise where.error("an infinite number", column, at, float(values[at]), "correct it")


def signed_log(values: Array) -> Array:
    """sign(x) log(1 + |x|) in float64; NaN stays NaN."""
    wide = np.asarray(values, np.float64)
    logs: Array = np.copysign(np.log1p(np.abs(wide)), wide)
    return logs


@dataclass
class NumberStats:
    """Mergeable range and, if requested, sums of a column's filled values.

    Sums are pairs of float64 (106 bits), so that mean and variance do not depend on the batches.
    """

    with_sums: bool
    count: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    sums: Array = field(default_factory=lambda: np.zeros((2, 2)))  # of x and x^2, as high + low

    def update(self, values: Array, fill: float, column: str, where: Where) -> None:
        """Add (N,) values, with `fill` for NaN.

        Raises:
            UserError: an infinite value, or one too large for float32.
        """
        from tossctr.data.encoding.kernels import add_sums, value_range

        low, high, bad = value_range(values, fill, FLOAT32_MAX)
        if bad >= 0:
            raise where.error(
                "a number that float32 cannot hold", column, bad, float(values[bad]), "correct it"
            )
        self.count += len(values)
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.with_sums:
            add_sums(values, fill, self.sums)

    def merge(self, other: NumberStats) -> None:
        from tossctr.data.encoding.kernels import merge_sums

        self.count += other.count
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        merge_sums(self.sums, other.sums)

    def min_max(self) -> tuple[float, float]:
        """(shift, scale) with (x - shift) * scale in [0, 1]; a constant column becomes 0."""
        span = self.high - self.low
        if not self.count:
            return 0.0, 1.0
        # scikit-learn's bound for a constant column.
        return self.low, 1.0 if span < 10 * np.finfo(np.float64).eps else 1.0 / span

    def standard(self) -> tuple[float, float]:
        """(shift, scale) with (x - shift) * scale of mean 0 and variance 1 (over N, not N - 1)."""
        if not self.count:
            return 0.0, 1.0
        # In rational numbers, as the difference would cancel all digits of float64.
        total, squares = (Fraction(high) + Fraction(low) for high, low in self.sums.tolist())
        mean = float(total / self.count)
        variance = max(0.0, float((squares - total * total / self.count) / self.count))
        eps = float(np.finfo(np.float64).eps)
        bound = self.count * eps * variance + (self.count * mean * eps) ** 2
        constant = self.low == self.high or variance <= bound
        return mean, 1.0 if constant else 1.0 / float(np.sqrt(variance))


def scale_into(
    out: Array, values: Array, missing: float, shift: float, scale: float, column: str, where: Where
) -> int:
    """Compute out = (values - shift) * scale in float64, with `missing` for NaN.

    Returns:
        The number of NaN.

    Raises:
        UserError: an infinite value, or a result too large for the dtype of `out`.
    """
    limit = FLOAT32_MAX if out.dtype == np.float32 else float(np.finfo(np.float64).max)
    is_missing = np.isnan(values)
    count = int(np.count_nonzero(is_missing))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.subtract(values, shift, dtype=np.float64)
        scaled *= scale
    if count:
        scaled[is_missing] = 0.0
    bad = -1
    if len(scaled) and not (-limit <= scaled.min() and scaled.max() <= limit):  # True for NaN
        bad = int((~(np.abs(scaled) <= limit)).argmax())
    elif count and abs(missing) > limit:
        bad = int(is_missing.argmax())
    if count:
        scaled[is_missing] = missing
    if bad >= 0:
        raise where.error(
            "an infinite or too large number", column, bad, float(values[bad]), "correct it"
        )
    out[...] = scaled
    return count
