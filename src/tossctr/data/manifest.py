"""The manifest of a training store, and checks that its files match."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tossctr.artefact import Sha256, opened, read_artefact
from tossctr.data.encoding.vocabulary import smallest_unsigned
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError

FILE = "manifest.json"
AGAIN = "prepare again with --force"
HEADER_BYTES = 128  # of each .npy file; fixed, as the shape is written last
MATRICES = ("categorical", "numeric", "times", "meta", "label")


class StoredArray(BaseModel):
    """One `.npy` file of a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9_.-]+\.npy$")
    dtype: Literal["|u1", "<u2", "<u4", "<f4", "<f8", "<i8"]
    shape: tuple[int, ...] = Field(min_length=1, max_length=2)
    sha256: Sha256

    @property
    def bytes(self) -> int:
        """Size of the data without the header."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize


class Manifest(BaseModel):
    """The content of `manifest.json`; keys of `arrays` are `categorical`, ..., and `<field>/values`
    and `<field>/offsets` for each sequence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tossctr-store"] = "tossctr-store"
    version: Literal[2] = 2
    rows: int = Field(ge=0)
    encoder: str
    features: FeatureMap
    arrays: dict[str, StoredArray]


def layout(features: FeatureMap) -> dict[str, tuple[np.dtype[Any], int | None]]:
    """Dtype and number of columns (None: one-dimensional) by array name."""
    categorical = features.names("categorical")
    largest = max((features[name].vocab_size or 0 for name in categorical), default=0)
    arrays: dict[str, tuple[np.dtype[Any], int | None]] = {
        "categorical": (smallest_unsigned(largest), len(categorical)),
        "numeric": (np.dtype(np.float32), len(features.names("numeric"))),
        "times": (np.dtype(np.float64), len(features.names("time"))),
        "meta": (np.dtype(np.int64), len(features.groups)),
        "label": (np.dtype(np.float32), None),
    }
    for field in features.fields:
        match field.type:
            case "sequence":
                dtype = smallest_unsigned(field.vocab_size or 0)
            case "numeric_sequence":
                dtype = np.dtype(np.float32)
            case "time_sequence":
                dtype = np.dtype(np.float64)
            case _:
                continue
        arrays[f"{field.name}/values"] = (dtype, None)
        arrays[f"{field.name}/offsets"] = (np.dtype(np.int64), None)
    return arrays


def sequences(features: FeatureMap) -> tuple[str, ...]:
    """Names of the ragged fields, in order."""
    return features.names("sequence", "numeric_sequence", "time_sequence")


def files(features: FeatureMap) -> list[str]:
    """A file name for each array of `layout`; the field's name in it is shortened."""
    names = [f"{name}.npy" for name in MATRICES]
    for index, name in enumerate(sequences(features)):
        stem = f"{index:03d}-" + re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
        names += [f"{stem}.values.npy", f"{stem}.offsets.npy"]
    return names


def header(stored: StoredArray) -> bytes:
    """The header of a version 1.0 `.npy` file."""
    text = f"{{'descr': '{stored.dtype}', 'fortran_order': False, 'shape': {stored.shape}, }}"
    size = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest, and check its consistency and the sizes of the files.

    Raises:
        UserError: no store, another version, or files that do not match.
    """
    file = folder / FILE
    manifest = read_artefact(file, Manifest, remedy=AGAIN)
    expected = layout(manifest.features)
    if manifest.arrays.keys() != expected.keys():
        raise damaged(file, "its arrays are not those of its features")
    for (name, (dtype, columns)), path in zip(
        expected.items(), files(manifest.features), strict=True
    ):
        stored = manifest.arrays[name]
        length = manifest.rows + name.endswith("/offsets")
        if name.endswith("/values"):
            length = stored.shape[0]
        shape = (length,) if columns is None else (length, columns)
        if stored.file != path or stored.dtype != dtype.str or stored.shape != shape:
            raise damaged(file, f"array {name!r} does not fit the features and the rows")
        data = folder / stored.file
        with opened(data, remedy=AGAIN) as handle:
            if os.fstat(handle.fileno()).st_size != HEADER_BYTES + stored.bytes:
                raise damaged(data, "not of the size that the manifest gives")
            if handle.read(HEADER_BYTES) != header(stored):
                raise damaged(data, "its header is not what the manifest gives")
    return manifest


def damaged(file: Path, problem: str) -> UserError:
    """The error for a store that cannot be used."""
    return UserError(problem, file=file, remedy=AGAIN)
