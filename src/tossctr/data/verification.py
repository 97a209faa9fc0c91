"""Verify a store's files: completely once, and then by their stamps.

Verifying reads the whole store. So size, inode and times of each file are recorded after writing or
verifying. Users cannot set the change time among them: a file that was modified or copied has
another one, and is verified again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.artefact import Artefact, Sha256, opened, sha256_of_regular
from tossctr.data.features import FeatureMap
from tossctr.data.manifest import AGAIN, FILE, HEADER_BYTES, Manifest, StoredArray, damaged
from tossctr.progress import say

_BLOCK_BYTES = 4 << 20

Array = NDArray[Any]


class Stamps(Artefact):
    """The hash of the manifest; size, inode, modification time and change time (ns) by file."""

    manifest: Sha256
    files: dict[str, tuple[int, int, int, int]]


def stamps_of(folder: Path, manifest: Manifest) -> Stamps:
    """The present stamps of a store's files."""

    def stamp(file: Path) -> tuple[int, int, int, int]:
        status = file.lstat()
        return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    try:
        files = {stored.file: stamp(folder / stored.file) for stored in manifest.arrays.values()}
    except OSError as error:
        raise damaged(Path(error.filename or folder), "cannot be read") from error
    return Stamps(manifest=sha256_of_regular(folder / FILE, remedy=AGAIN), files=files)


def check_store(folder: Path, manifest: Manifest, known: Stamps | None) -> None:
    """Verify a store, unless its files have the stamps of the last verification.

    Raises:
        UserError: the content of a file has changed, or does not fit the fields.
    """
    if known is not None:
        if stamps_of(folder, manifest) == known:
            return
        say(f"{folder} was copied or changed since it was last verified: verifying it")
    check_content(folder, manifest)


def check_content(folder: Path, manifest: Manifest) -> None:
    """Read all arrays, and check hashes and ranges of values.

    Raises:
        UserError: as `check_store`.
    """
    for name, stored in manifest.arrays.items():
        _check_array(folder / stored.file, stored, _fits(name, manifest))


def _check_array(path: Path, stored: StoredArray, fits: Callable[[Array, Array], bool]) -> None:
    digest = hashlib.sha256()
    row_bytes = max(stored.bytes // max(stored.shape[0], 1), 1)
    block = max(_BLOCK_BYTES // row_bytes, 1) * row_bytes
    last = np.zeros(1, stored.dtype)
    with opened(path, remedy=AGAIN) as file:
        file.seek(HEADER_BYTES)
        sound = True
        while content := file.read(block):
            digest.update(content)
            if sound and len(content) % row_bytes == 0:
                values = np.frombuffer(content, stored.dtype).reshape(-1, *stored.shape[1:])
                sound = fits(values, last)
                last = values[-1:]
    if digest.hexdigest() != stored.sha256:
        raise damaged(path, "its content has changed since it was written")
    if not sound:
        raise damaged(path, "holds values that do not fit the fields")


def _fits(name: str, manifest: Manifest) -> Callable[[Array, Array], bool]:
    """Whether a block of an array, which follows the row `last`, is valid."""
    features = manifest.features
    if name == "categorical":
        return _below([_size(features, n) for n in features.names("categorical")])
    if name == "label":
        return lambda values, last: bool(((values == 0) | (values == 1)).all())
    if name.endswith("/offsets"):
        return lambda values, last: bool((np.diff(values, prepend=last) >= 0).all())
    field = name.removesuffix("/values")
    if name.endswith("/values") and features[field].type == "sequence":
        return _below([_size(features, field)])
    return lambda values, last: True


def _below(sizes: list[int]) -> Callable[[Array, Array], bool]:
    limit = np.array(sizes, np.int64)

    def fits(values: Array, last: Array) -> bool:
        # Compares the maximum of each column, as comparing all values would copy them.
        return bool((values.reshape(len(values), -1).max(axis=0).astype(np.int64) < limit).all())

    return fits


def _size(features: FeatureMap, name: str) -> int:
    return features[name].vocab_size or 0
