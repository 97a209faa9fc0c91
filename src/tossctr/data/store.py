"""The training store: encoded rows as plain `.npy` files with a manifest, written as a stream.

A store is a folder, whole or absent: it is written under a temporary name, synced and renamed.

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
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.data.vocabulary import smallest_unsigned
from tossctr.errors import UserError
from tossctr.files import write_json

Array = NDArray[Any]

FILE = "manifest.json"
HEADER_BYTES = 128  # of each .npy file: fixed, so that the shape can be written at the end
MATRICES = ("categorical", "numeric", "times", "meta", "label")


class StoredArray(BaseModel):
    """One `.npy` file of a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9_.-]+\.npy$")
    dtype: Literal["|u1", "<u2", "<u4", "<f4", "<f8", "<i8"]
    shape: tuple[int, ...] = Field(min_length=1, max_length=2)
    sha256: str

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize


class Manifest(BaseModel):
    """What a store holds; `arrays` by `categorical`, ..., and `<field>/values`, `<field>/offsets`
    for each sequence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tossctr-store"] = "tossctr-store"
    version: Literal[1] = 1
    rows: int = Field(ge=0)
    encoder: str
    features: FeatureMap
    arrays: dict[str, StoredArray]


def _layout(features: FeatureMap) -> dict[str, tuple[np.dtype[Any], int | None]]:
    """Name -> type and columns (None: one-dimensional) of each array that the fields need."""
    categorical = features.names("categorical")
    largest = max((features[name].vocab_size or 0 for name in categorical), default=0)
    layout: dict[str, tuple[np.dtype[Any], int | None]] = {
        "categorical": (smallest_unsigned(largest), len(categorical)),
        "numeric": (np.dtype(np.float32), len(features.names("numeric"))),
        "times": (np.dtype(np.float64), len(features.names("time"))),
        "meta": (np.dtype(np.int64), len(features.names("meta"))),
        "label": (np.dtype(np.float32), None),
    }
    for field in features.fields:
        match field.kind:
            case "sequence":
                dtype = smallest_unsigned(field.vocab_size or 0)
            case "numeric_sequence":
                dtype = np.dtype(np.float32)
            case "time_sequence":
                dtype = np.dtype(np.float64)
            case _:
                continue
        layout[f"{field.name}/values"] = (dtype, None)
        layout[f"{field.name}/offsets"] = (np.dtype(np.int64), None)
    return layout


class _ArrayWriter:
    """Appends to one `.npy` file; the header's shape is written at the end."""

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

    def close(self) -> StoredArray:
        shape = (self.length,) if self.columns is None else (self.length, self.columns)
        stored = StoredArray(
            file=self.path.name,
            dtype=self.dtype.str,
            shape=shape,
            sha256=self._hash.hexdigest(),
        )
        self._file.seek(0)
        self._file.write(_header(stored))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return stored

    def abandon(self) -> None:
        self._file.close()


def _header(stored: StoredArray) -> bytes:
    """The header of a version 1.0 `.npy` file."""
    text = f"{{'descr': '{stored.dtype}', 'fortran_order': False, 'shape': {stored.shape}, }}"
    size = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n"


class StoreWriter:
    """Writes a store batch by batch; use as a context manager.

    On leaving without an exception the folder is put in place of an earlier one; after an exception
    nothing is left.

    Args:
        folder: where the store goes.
        features: the fields of every batch.
        encoder_hash: `Encoder.hash` of what encoded them.
    """

    def __init__(self, folder: Path, features: FeatureMap, encoder_hash: str) -> None:
        self.folder = folder
        self._features, self._encoder_hash = features, encoder_hash
        self._temporary = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        self._arrays = {
            name: _ArrayWriter(self._temporary / file, dtype, columns)
            for (name, (dtype, columns)), file in zip(
                _layout(features).items(), _files(features), strict=True
            )
        }
        for name in _sequences(features):
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
        """Write the manifest, sync everything and put the store in its place."""
        manifest = Manifest(
            rows=self.rows,
            encoder=self._encoder_hash,
            features=self._features,
            arrays={name: array.close() for name, array in self._arrays.items()},
        )
        write_json(self._temporary / FILE, manifest.model_dump(mode="json"))
        _sync_folder(self._temporary)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._temporary.rename(self.folder)
        _sync_folder(self.folder.parent)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        for array in self._arrays.values():
            array.abandon()
        shutil.rmtree(self._temporary, ignore_errors=True)


def _sequences(features: FeatureMap) -> tuple[str, ...]:
    return features.names("sequence", "numeric_sequence", "time_sequence")


def _files(features: FeatureMap) -> list[str]:
    """A file name for each array of `_layout`; a field's name is only a hint in it."""
    files = [f"{name}.npy" for name in MATRICES]
    for index, name in enumerate(_sequences(features)):
        stem = f"{index:03d}-" + re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
        files += [f"{stem}.values.npy", f"{stem}.offsets.npy"]
    return files


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest and check it against itself and the sizes of the files.

    Raises:
        UserError: no store, one of another version, or one that does not fit its manifest.
    """
    file = folder / FILE
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError("cannot be read", file=file, remedy="prepare again") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise _damaged(
            file, f"not a store that this version reads: {key}: {first['msg']}"
        ) from error
    layout = _layout(manifest.features)
    if manifest.arrays.keys() != layout.keys():
        raise _damaged(file, "its arrays are not those of its features")
    for (name, (dtype, columns)), path in zip(
        layout.items(), _files(manifest.features), strict=True
    ):
        stored = manifest.arrays[name]
        length = manifest.rows + name.endswith("/offsets")
        if name.endswith("/values"):
            length = stored.shape[0]
        shape = (length,) if columns is None else (length, columns)
        if stored.file != path or stored.dtype != dtype.str or stored.shape != shape:
            raise _damaged(file, f"array {name!r} does not fit the features and the rows")
        data = folder / stored.file
        if not data.is_file() or data.is_symlink():
            raise _damaged(data, "missing")
        if data.stat().st_size != HEADER_BYTES + stored.bytes:
            raise _damaged(data, "not of the size that the manifest gives")
        with data.open("rb") as opened:
            if opened.read(HEADER_BYTES) != _header(stored):
                raise _damaged(data, "its header is not what the manifest gives")
    return manifest


def _damaged(file: Path, problem: str) -> UserError:
    return UserError(problem, file=file, remedy="prepare again with --force")


def open_store(folder: Path) -> EncodedRows:
    """The rows of a store, memory-mapped read-only.

    Raises:
        UserError: no store, one of another version, or one that does not fit its manifest.
    """
    manifest = read_manifest(folder)

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
            raise _damaged(folder / manifest.arrays[f"{name}/offsets"].file, "offsets do not fit")
        return RaggedArray(values, offsets)

    features = manifest.features
    return EncodedRows(
        features=features,
        **{name: array(name) for name in MATRICES},
        sequences={n: ragged(n) for n in features.names("sequence", "numeric_sequence")},
        time_sequences={n: ragged(n) for n in features.names("time_sequence")},
    )


def verify_store(folder: Path) -> Manifest:
    """Read a whole store and check the hash of every array.

    Raises:
        UserError: a file whose content has changed since it was written.
    """
    manifest = read_manifest(folder)
    for stored in manifest.arrays.values():
        with (folder / stored.file).open("rb") as file:
            file.seek(HEADER_BYTES)
            if hashlib.file_digest(file, "sha256").hexdigest() != stored.sha256:
                raise _damaged(folder / stored.file, "its content has changed since it was written")
    return manifest
