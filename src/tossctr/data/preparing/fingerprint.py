"""Detect changes of input files."""

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
    """The input files of a result. As a context manager, it ends its hashing thread.

    Args:
        paths: files or folders, by role (`train`, `valid`, `data`).
    """

    def __init__(self, paths: Mapping[str, Location]) -> None:
        self._paths = dict(paths)
        self._stats = {role: _stat(path) for role, path in self._paths.items()}
        self._pool = ThreadPoolExecutor(1)
        self._hashes: dict[str, Future[str]] = {}

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start_hashing(self) -> None:
        """Hash the files in the background."""
        for role in self._paths:
            self._hash(role)

    def same_as(self, earlier: Mapping[str, Any]) -> bool:
        """Whether the files equal those of an earlier `as_dict`: by size and modification time, or
        else by content; their paths may differ."""
        if earlier.keys() != self._paths.keys():
            return False
        for role, was in earlier.items():
            now = self._stats[role]
            if now["size"] != was["size"]:
                return False
            same_time = now.items() <= was.items() and len(now) > 1
            if redacted(str(self._paths[role])) == was["path"] and same_time:
                known: Future[str] = Future()
                known.set_result(was["sha256"])
                self._hashes[role] = known
            elif self._hash(role).result() != was["sha256"]:
                return False
        return True

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Path, size in bytes, modification time and SHA-256 by role; for a folder, the total size,
        and one hash each of the times and of the contents.

        Raises:
            UserError: a file changed meanwhile.
        """
        described = {}
        for role, path in self._paths.items():
            digest = self._hash(role).result()
            if _stat(path) != self._stats[role]:
                raise UserError(
                    "changed while it was read", file=path, remedy="give the same command again"
                )
            described[role] = {"path": redacted(str(path)), **self._stats[role], "sha256": digest}
        return described

    def _hash(self, role: str) -> Future[str]:
        if role not in self._hashes:
            self._hashes[role] = self._pool.submit(_content, self._paths[role])
        return self._hashes[role]


def _stat(path: Location) -> dict[str, Any]:
    if not is_folder(path):
        return stamp(path)
    files = files_in(path)
    stamps = [stamp(file) for file in files]
    size = sum(of["size"] for of in stamps)
    if any(len(of) == 1 for of in stamps):  # a server that only tells sizes
        return {"size": size}
    named = [[_within(path, file), of] for file, of in zip(files, stamps, strict=True)]
    return {"size": size, "files": len(files), "times": _hash_of(named)}


def _content(path: Location) -> str:
    """SHA-256 of a file's content, or of a folder's file names and contents, with the columns in
    the names of folders. The ETag of an object store replaces the content, which is then not
    read."""
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
