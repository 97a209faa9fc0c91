"""The training store: encoded rows as `.npy` files with a manifest, written as a stream.

A store is a folder that is written atomically: under a temporary name, synced and renamed.

    manifest.json            version, rows, encoder hash, feature map, and each array's file, type,
                             shape and SHA-256 (of its data: the bytes after the .npy header)
    categorical.npy          (N, n) smallest unsigned type that holds every categorical vocabulary
    numeric.npy              (N, n) float32
    times.npy, meta.npy      (N, n) float64 and int64
    label.npy                (N,) float32
    000-seq.values.npy       (M,) the first sequence's ids in their smallest type, or numbers
    000-seq.offsets.npy      (N + 1,) int64
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.features import FeatureMap
from tossctr.data.manifest import (
    FILE,
    HEADER_BYTES,
    MATRICES,
    Manifest,
    StoredArray,
    damaged,
    files,
    header,
    layout,
    read_manifest,
    sequences,
)
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.files import sync_folder, write_json
from tossctr.folders import mark, remove_made

Array = NDArray[Any]


class _ArrayWriter:
    """Appends to one `.npy` file; the shape in its header is written last."""

    def __init__(self, path: Path, dtype: np.dtype[Any], columns: int | None) -> None:
        self.path, self.dtype, self.columns = path, dtype, columns
        self.length = 0
        self._hash = hashlib.sha256()
        self._file = path.open("xb")
        self._file.write(b" " * HEADER_BYTES)

    def append(self, values: Array) -> None:
        expected = (len(values),) if self.columns is None else (len(values), self.columns)
        if values.dtype != self.dtype or values.shape != expected:
            raise ValueError(f"{self.path.name}: {values.dtype}{values.shape}, not {self.dtype}")
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        self._hash.update(data)
        self._file.write(data)
        self.length += len(values)

    def close(self, durable: bool) -> StoredArray:
        shape = (self.length,) if self.columns is None else (self.length, self.columns)
        stored = StoredArray(
            file=self.path.name,
            dtype=self.dtype.str,
            shape=shape,
            sha256=self._hash.hexdigest(),
        )
        self._file.seek(0)
        self._file.write(header(stored))
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        return stored

    def abandon(self) -> None:
        self._file.close()


class StoreWriter:
    """Writes a store batch by batch; use as a context manager.

    On success the folder replaces an earlier one; after an exception it is removed.

    Args:
        folder: of the store.
        features: the fields of every batch.
        encoder_hash: `Encoder.hash` of their encoder.
        durable: sync to disk; a temporary store does not need it.
    """

    def __init__(
        self, folder: Path, features: FeatureMap, encoder_hash: str, *, durable: bool = True
    ) -> None:
        self.folder, self._durable = folder, durable
        self._features, self._encoder_hash = features, encoder_hash
        self._temporary = folder.with_name(f".{folder.name}.partial")
        remove_made(self._temporary, "store")
        mark(self._temporary, "store")
        self._arrays = {
            name: _ArrayWriter(self._temporary / file, dtype, columns)
            for (name, (dtype, columns)), file in zip(
                layout(features).items(), files(features), strict=True
            )
        }
        for name in sequences(features):
            self._arrays[f"{name}/offsets"].append(np.zeros(1, np.int64))

    @property
    def rows(self) -> int:
        return self._arrays["label"].length

    def append(self, rows: EncodedRows) -> None:
        """Add labelled rows."""
        if rows.label is None:
            raise ValueError("a training store holds labelled rows")
        for name in MATRICES:
            self._arrays[name].append(getattr(rows, name))
        for name, ragged in {**rows.sequences, **rows.time_sequences}.items():
            values = self._arrays[f"{name}/values"]
            self._arrays[f"{name}/offsets"].append(ragged.offsets[1:] + values.length)
            values.append(ragged.values)

    def close(self) -> None:
        """Write the manifest, sync all files and rename the folder."""
        manifest = Manifest(
            rows=self.rows,
            encoder=self._encoder_hash,
            features=self._features,
            arrays={name: array.close(self._durable) for name, array in self._arrays.items()},
        )
        write_json(self._temporary / FILE, manifest.model_dump(mode="json"))
        sync_folder(self._temporary)
        remove_made(self.folder, "store")
        self._temporary.rename(self.folder)
        sync_folder(self.folder.parent)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for array in self._arrays.values():
            array.abandon()
        remove_made(self._temporary, "store")


def open_store(folder: Path, manifest: Manifest | None = None) -> EncodedRows:
    """The rows of a store, memory-mapped read-only; `check_content` verifies them.

    Args:
        folder: the store.
        manifest: the result of `read_manifest`; None reads it.

    Raises:
        UserError: no store, another version, or files of other sizes.
    """
    manifest = read_manifest(folder) if manifest is None else manifest

    def array(name: str) -> Array:
        stored = manifest.arrays[name]
        if stored.bytes == 0:  # an empty file cannot be mapped
            return np.empty(stored.shape, stored.dtype)
        return np.memmap(
            folder / stored.file, stored.dtype, mode="r", offset=HEADER_BYTES, shape=stored.shape
        )

    def ragged(name: str) -> RaggedArray:
        values, offsets = array(f"{name}/values"), array(f"{name}/offsets")
        if offsets[0] != 0 or offsets[-1] != len(values):
            raise damaged(folder / manifest.arrays[f"{name}/offsets"].file, "offsets do not fit")
        return RaggedArray(values, offsets)

    features = manifest.features
    return EncodedRows(
        features=features,
        **{name: array(name) for name in MATRICES},
        sequences={n: ragged(n) for n in features.names("sequence", "numeric_sequence")},
        time_sequences={n: ragged(n) for n in features.names("time_sequence")},
    )
