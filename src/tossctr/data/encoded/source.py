"""Files of indices, written by FuxiCTR or by `tossctr export`.

In FuxiCTR 2 and TossCTR PAD is 0 and OOV the last index; in FuxiCTR 1 OOV is 0 and PAD the last
index of a sequence. Padding at either end of a sequence is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoded.feature_map import MAP, FuxiFeature, FuxiMap, vocabulary_of
from tossctr.data.encoding.lists import flat_list, is_list
from tossctr.data.sources.base import Source, short
from tossctr.data.where import RowsIn, Where
from tossctr.errors import UserError

Array = NDArray[Any]


class EncodedSource(Source):
    """Reads a file of indices, and converts FuxiCTR 1's convention.

    An exported file contains the hash of its vocabulary; any other needs a `feature_map.json` in
    its folder.

    Raises:
        UserError: neither exists.
    """

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.path, self.names, self.columns = inner.path, inner.names, inner.columns
        self.vocabulary = inner.vocabulary
        self._features: dict[str, FuxiFeature] = {}
        if self.vocabulary is None:
            folder = _folder_of(inner)
            self.vocabulary = vocabulary_of(folder)
            self._features = dict(FuxiMap.read(folder / MAP).features)

    @property
    def file(self) -> RowsIn:
        return self._inner.file

    @property
    def num_rows(self) -> int | None:
        return self._inner.num_rows

    def count_rows(self) -> int:
        return self._inner.count_rows()

    @property
    def ends(self) -> tuple[int, ...] | None:
        return self._inner.ends

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        for batch in self._inner.batches(columns, start, stop, batch_rows):
            where = Where(start, self.file)
            start += batch.num_rows
            names = batch.schema.names
            arrays = [self._ours(n, a, where) for n, a in zip(names, batch.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=names)

    def _ours(self, name: str, array: pa.Array, where: Where) -> pa.Array:
        feature = self._features.get(name)
        has_indices = feature is not None and feature.vocab_size is not None
        if is_list(array):
            offsets, flat = flat_list(array)
            if pa.types.is_floating(flat.type) and not has_indices:  # only in exported files
                values = flat.to_numpy(zero_copy_only=False)
                values, offsets = trimmed(values, offsets, ~np.isnan(values))
            else:
                values = _indices(flat, name, where.of_values(offsets))
                if feature is not None:
                    values = reindexed(values, feature)
                values, offsets = trimmed(values, offsets, values != 0)
            return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
        if feature is None or not has_indices or array.null_count:
            return array  # the encoder reports missing values
        return pa.array(reindexed(_indices(array, name, where), feature))


def _indices(values: pa.Array, column: str, where: Where) -> Array:
    """Convert to int64.

    Raises:
        UserError: a null, or a value that is not an integer.
    """
    remedy = "write whole numbers, as feature_map.json counts them"
    if values.null_count:
        at = pc.index(values.is_null(), True).as_py()
        raise where.error("a null among the indices", column, at, None, remedy)
    try:
        found: Array = values.cast(pa.int64()).to_numpy()
    except pa.ArrowException as error:
        raise where.error(f"not an index: {short(error)}", column, None, None, remedy) from error
    return found


def _folder_of(source: Source) -> Path:
    if not isinstance(source.path, Path):
        raise UserError(
            "has indices, and in an object store their feature_map.json is not read",
            file=source.path,
            remedy="give a local file with its feature_map.json, or one that tossctr export made",
        )
    return source.path.parent


def require_vocabulary(source: Source, vocabulary: str | None) -> None:
    """Check that a file was encoded with this vocabulary (None: that its values are raw).

    Raises:
        UserError: it was not.
    """
    if source.vocabulary == vocabulary:
        return
    if source.vocabulary is None:
        raise UserError(
            "holds raw values, where indices were expected",
            file=source.path,
            remedy="give a file made with the same vocabulary: tossctr export",
        )
    if vocabulary is None:
        raise UserError(
            "holds indices, where raw values were expected",
            file=source.path,
            remedy="set rebuild_dataset: false, or give the raw file",
        )
    raise UserError(
        f"was made with another vocabulary ({source.vocabulary[:12]}, not {vocabulary[:12]})",
        file=source.path,
        remedy="make it again with the vocabulary of this data set or run: tossctr export",
    )


def vocab_size(feature: FuxiFeature) -> int | None:
    """Vocabulary size in TossCTR's convention: one more if FuxiCTR 1 has no PAD."""
    if feature.vocab_size is None:
        return None
    return feature.vocab_size + (feature.padding_idx is None)


def reindexed(ids: Array, feature: FuxiFeature) -> Array:
    """Convert indices to PAD at 0 and OOV last."""
    pad = feature.padding_idx
    if pad == 0 or feature.vocab_size is None:
        return ids
    last = feature.vocab_size if pad is None else pad
    swapped = np.where(ids == 0, last, ids)
    return swapped if pad is None else np.where(ids == pad, 0, swapped)


def trimmed(values: Array, offsets: Array, real: Array) -> tuple[Array, Array]:
    """Sequences (M,) and offsets (N + 1,) without padding, `~real`, at their ends."""
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    first, end = lengths.copy(), np.zeros_like(lengths)
    np.minimum.at(first, row[real], place[real])
    np.maximum.at(end, row[real], place[real] + 1)
    kept = (place >= first[row]) & (place < end[row])
    bounds = np.zeros_like(offsets)
    np.cumsum(np.maximum(end - first, 0), out=bounds[1:])
    return values[kept], bounds
