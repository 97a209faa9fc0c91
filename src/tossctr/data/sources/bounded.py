"""Bound batches in bytes, as rows may have a million events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.where import Where

BATCH_BYTES = 16 << 20  # 4096 rows with sequences of 2 KB are 10 MB
MAX_ROW_BYTES = 256 << 20  # limit of a single row; 30 million events


def bounded(batch: pa.RecordBatch, rows: int, where: Where) -> Iterator[pa.RecordBatch]:
    """Split a batch into batches of at most `rows` rows and `BATCH_BYTES`, with at least one row.

    Raises:
        UserError: a row is larger than `MAX_ROW_BYTES`.
    """
    sizes = row_bytes(batch)
    if sizes.max(initial=0) > MAX_ROW_BYTES:
        at = int(sizes.argmax())
        largest = max(batch.schema.names, key=lambda n: row_bytes(batch.select([n]))[at])
        raise where.error(
            f"a row of {sizes[at] / 1e6:,.0f} MB",
            largest,
            at,
            None,
            "cut the sequence to its newest events",
        )
    start = 0
    while start < batch.num_rows:
        length = first_rows(sizes[start : start + rows], BATCH_BYTES)
        yield batch.slice(start, length)
        start += length


def first_rows(sizes: NDArray[np.int64], limit: int) -> int:
    """The number of first rows whose sizes in bytes sum up to at most `limit`; at least 1."""
    return max(1, int(np.searchsorted(np.cumsum(sizes), limit, side="right")))


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """(B,) size of each row in bytes, with dictionaries decoded."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for array in batch.columns:
        sizes += _sizes(array)
    return sizes


def _sizes(array: pa.Array) -> NDArray[np.int64] | int:
    dtype = array.type
    if pa.types.is_dictionary(dtype):
        texts = pc.binary_length(array.dictionary).take(array.indices)
        return _filled(texts) + 4
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_binary(dtype):
        return _filled(pc.binary_length(array)) + 4
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        lengths, inner = _filled(pc.list_value_length(array)), _sizes(array.flatten())
        if isinstance(inner, int):
            return lengths * inner
        ends = np.cumsum(np.append(0, lengths))
        in_rows: NDArray[np.int64] = np.diff(np.append(0, np.cumsum(inner))[ends])
        return in_rows
    return max(int(dtype.bit_width) // 8, 1) if pa.types.is_primitive(dtype) else 8


def _filled(lengths: pa.Array) -> NDArray[np.int64]:
    found: NDArray[Any] = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)
