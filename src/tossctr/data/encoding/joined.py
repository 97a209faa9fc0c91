"""Fast path for sequences of integers joined as text, parsed from the Arrow buffer.

Only integers whose text is canonical ('42', not '042', '+42' or '42.0') are parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class JoinedIntegers:
    """N rows of joined text as buffers, for sequences of non-negative integers.

    Methods return None if a token is not a canonical integer or too large for the table.
    """

    data: Array  # (bytes,) uint8
    starts: Array  # (N + 1,) int32 or int64, positions in data
    separator: int

    @classmethod
    def of(cls, array: pa.Array, splitter: str) -> JoinedIntegers | None:
        """A view of a string column; None for splitters of several bytes."""
        separator = splitter.encode()
        if len(separator) != 1 or separator.isdigit():
            return None
        if array.null_count:
            array = pc.fill_null(array, "")
        offset_type = np.int64 if pa.types.is_large_string(array.type) else np.int32
        _, starts, data = array.buffers()
        if len(array) == 0 or starts is None:
            return cls(np.zeros(0, np.uint8), np.zeros(len(array) + 1, offset_type), separator[0])
        return cls(
            np.frombuffer(data or b"", np.uint8),
            np.frombuffer(starts, offset_type)[array.offset : array.offset + len(array) + 1],
            separator[0],
        )

    def _scratch(self) -> Array:
        longest = int(np.diff(self.starts).max(initial=0))
        return np.empty(longest // 2 + 1, np.int64)

    def _capacity(self) -> int:
        """An upper bound of the number of tokens: separators plus rows."""
        return (int(self.starts[-1]) - int(self.starts[0]) + len(self.starts)) // 2 + 1

    def count(self, size: int) -> tuple[Array, int] | None:
        """(size,) int64 counts of the ids 0..size-1, and the length of the longest row."""
        table = np.zeros(size, np.int64)
        from tossctr.data.encoding.kernels import count_tokens

        longest = count_tokens(self.data, self.starts, self.separator, table, self._scratch())
        return None if longest < 0 else (table, int(longest))

    def look_up(self, table: Array, oov: int) -> tuple[Array, Array, int] | None:
        """table[token] of every token (`oov` beyond the table), offsets, and the number of
        `oov`."""
        out = np.empty(self._capacity(), table.dtype)
        offsets = np.zeros(len(self.starts), np.int64)
        scratch = self._scratch()
        from tossctr.data.encoding.kernels import look_up_tokens

        unseen = look_up_tokens(
            self.data, self.starts, self.separator, table, oov, scratch, out, offsets
        )
        return None if unseen < 0 else (out[: offsets[-1]], offsets, unseen)

    def parse(self) -> tuple[Array, Array] | None:
        """(M,) int64 integers, and offsets."""
        out = np.empty(self._capacity(), np.int64)
        offsets = np.zeros(len(self.starts), np.int64)
        from tossctr.data.encoding.kernels import parse_tokens

        ok = parse_tokens(self.data, self.starts, self.separator, out, offsets)
        return (out[: offsets[-1]], offsets) if ok else None
