"""Write encoded rows as streams to files that FuxiCTR reads: H5 (1.1 to 2.2) or Parquet (2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field
from tossctr.data.sources.base import VOCABULARY
from tossctr.data.sources.h5 import writing as writing_h5
from tossctr.errors import UserError
from tossctr.files import whole_file

Array = NDArray[Any]
Append = Callable[[dict[str, Array]], None]

_CHUNK_BYTES = 1 << 20  # chunk size of H5 datasets


def columns_of(batch: Batch, features: FeatureMap) -> dict[str, Array]:
    """B rows as FuxiCTR's columns: (B,) ids int32, numbers float32, groups int64, times float64;
    sequences are (B, max_len), padded where they are cut, ids with 0, numbers and times with
    NaN."""
    categorical = features.names("categorical")
    numeric = features.names("numeric")
    columns: dict[str, Array] = {}
    for field in features.fields:
        match field.type:
            case "categorical":
                ids = batch.categorical[:, categorical.index(field.name)]
                columns[field.name] = ids.numpy().astype(np.int32)
            case "numeric":
                columns[field.name] = batch.numeric[:, numeric.index(field.name)].numpy()
            case "meta":
                columns[field.name] = batch.meta[field.name].numpy()
            case "sequence":
                out = np.zeros((len(batch), field.max_len or 0), np.int32)
                columns[field.name] = _padded(batch.sequences[field.name], field, out)
            case "numeric_sequence":
                out = np.full((len(batch), field.max_len or 0), np.nan, np.float32)
                columns[field.name] = _padded(batch.sequences[field.name], field, out)
            case "time":
                columns[field.name] = batch.times[field.name].numpy()
            case "time_sequence":
                out = np.full((len(batch), field.max_len or 0), np.nan)
                columns[field.name] = _padded(batch.time_sequences[field.name], field, out)
    return columns


def _padded(ragged: Ragged, field: Field, out: Array) -> Array:
    """Copy sequences into `out` (B, max_len), which is filled with padding."""
    lengths = ragged.lengths.numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(ragged.values)) - np.repeat(ragged.offsets.numpy()[:-1], lengths)
    if field.truncating == "pre":
        place += out.shape[1] - lengths[row]
    out[row, place] = ragged.values.numpy()
    return out


@contextmanager
def writing(path: Path, vocabulary: str) -> Iterator[Append]:
    """Write a file atomically through a function that appends columns.

    Args:
        path: its suffix gives the format.
        vocabulary: hash of the vocabulary, stored in the file.

    Raises:
        UserError: h5py is not installed, or the file cannot be written.
    """
    write = _writing_h5 if path.suffix == ".h5" else _writing_parquet
    with whole_file(path) as temporary, write(temporary, path, vocabulary) as append:
        yield append


@contextmanager
def _writing_h5(temporary: Path, path: Path, vocabulary: str) -> Iterator[Append]:
    with writing_h5(temporary, path) as (file, check):
        file.attrs[VOCABULARY] = vocabulary

        def append(columns: dict[str, Array]) -> None:
            for name, values in columns.items():
                if "/" in name or name == ".":
                    raise UserError(
                        "names in H5 cannot contain /",
                        file=path,
                        column=name,
                        remedy="export as fuxictr-parquet, or rename the column",
                    )
                if name not in file:
                    _new_dataset(file, name, values)
                dataset = file[name]
                at = dataset.shape[0]
                dataset.resize(at + len(values), axis=0)
                dataset[at:] = values
            check()

        yield append


def _new_dataset(file: Any, name: str, values: Array) -> None:
    import h5py

    text = values.dtype.kind == "O"
    row_bytes = 16 if text else max(values[:1].nbytes, 1)
    chunk_rows = max(_CHUNK_BYTES // row_bytes, 1)
    file.create_dataset(
        name,
        shape=(0, *values.shape[1:]),
        maxshape=(None, *values.shape[1:]),
        chunks=(chunk_rows, *values.shape[1:]),
        dtype=h5py.string_dtype() if text else values.dtype,
        compression="gzip",  # most values are padding; every HDF5 library reads gzip
        compression_opts=1,
        shuffle=not text,
    )


@contextmanager
def _writing_parquet(temporary: Path, path: Path, vocabulary: str) -> Iterator[Append]:
    writer: pq.ParquetWriter | None = None

    def append(columns: dict[str, Array]) -> None:
        nonlocal writer
        arrays = [_arrow(values) for values in columns.values()]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
        if writer is None:
            metadata = {VOCABULARY: vocabulary}
            writer = pq.ParquetWriter(temporary, batch.schema.with_metadata(metadata))
        writer.write_batch(batch.replace_schema_metadata({VOCABULARY: vocabulary}))

    try:
        yield append
    finally:
        if writer is not None:
            writer.close()


def _arrow(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
