"""Whether input files are still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tossctr.data.sources.files import files_in, folder_of, partition_of
from tossctr.errors import UserError
from tossctr.files import sha256_of
from tossctr.location import Location, is_folder, opened, stamp
from tossctr.redaction import redacted

_BLOCK_BYTES = 4 << 20


class Inputs:
    """The files that something is made from; as a context manager it ends its hashing thread.

    Args:
        paths: by the part they play, files or folders of files.
    """

    def __init__(self, paths: Mapping[str, Location]) -> None:
        self._paths = dict(paths)
        self._stats = {part: _stat(path) for part, path in self._paths.items()}
        self._pool = ThreadPoolExecutor(1)
        self._hashes: dict[str, Future[str]] = {}

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start_hashing(self) -> None:
        """Hash the files in the background."""
        for part in self._paths:
            self._hash(part)

    def same_as(self, earlier: Mapping[str, Any]) -> bool:
        """Whether the files are those of an earlier `as_dict`, wherever they lie: by size and
        modification time, or else by content."""
        if earlier.keys() != self._paths.keys():
            return False
        for part, was in earlier.items():
            now = self._stats[part]
            if now["size"] != was["size"]:
                return False
            same_time = now.items() <= was.items() and len(now) > 1
            if redacted(str(self._paths[part])) == was["path"] and same_time:
                known: Future[str] = Future()
                known.set_result(was["sha256"])
                self._hashes[part] = known
            elif self._hash(part).result() != was["sha256"]:
                return False
        return True

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """By part: path, size in bytes, modification time and SHA-256; of a folder, the size of
        all its files, and one hash each of their times and of their content.

        Raises:
            UserError: a file has changed since this was made.
        """
        described = {}
        for part, path in self._paths.items():
            digest = self._hash(part).result()
            if _stat(path) != self._stats[part]:
                raise UserError(
                    "changed while it was read", file=path, remedy="give the same command again"
                )
            described[part] = {"path": redacted(str(path)), **self._stats[part], "sha256": digest}
        return described

    def _hash(self, part: str) -> Future[str]:
        if part not in self._hashes:
            self._hashes[part] = self._pool.submit(_content, self._paths[part])
        return self._hashes[part]


def _stat(path: Location) -> dict[str, Any]:
    if not is_folder(path):
        return stamp(path)
    files = files_in(path)
    stamps = [stamp(file) for file in files]
    size = sum(of["size"] for of in stamps)
    if any(len(of) == 1 for of in stamps):  # a store that knows nothing but sizes
        return {"size": size}
    named = [[_within(path, file), of] for file, of in zip(files, stamps, strict=True)]
    return {"size": size, "files": len(files), "times": _hash_of(named)}


def _content(path: Location) -> str:
    """SHA-256 of a file's content; of a folder, of the names and contents in it; of either, of the
    columns in the names of its folders too. A store's own tag of a content stands for it, so that
    nothing is read from there twice."""
    partition = partition_of(path if is_folder(path) else folder_of(path))
    return _hash_of([partition, _bytes(path)]) if partition else _bytes(path)


def _bytes(path: Location) -> str:
    if is_folder(path):
        return _hash_of([[_within(path, file), _of_file(file)] for file in files_in(path)])
    return _of_file(path)


def _of_file(path: Location) -> str:
    if isinstance(path, Path):
        return sha256_of(path)
    of = stamp(path)
    if "etag" in of:
        return _hash_of(of)
    with opened(path) as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()


def _within(folder: Location, file: Location) -> str:
    return str(file).removeprefix(str(folder))


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
