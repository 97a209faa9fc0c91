"""Whether input files are still the same."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tossctr.errors import UserError
from tossctr.files import sha256_of


class Inputs:
    """The files that something is made from; as a context manager it ends its hashing thread.

    Args:
        paths: the files by the part they play.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
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
            if str(self._paths[part]) == was["path"] and now["mtime_ns"] == was["mtime_ns"]:
                known: Future[str] = Future()
                known.set_result(was["sha256"])
                self._hashes[part] = known
            elif self._hash(part).result() != was["sha256"]:
                return False
        return True

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """By part: path, size in bytes, modification time and SHA-256.

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
            described[part] = {"path": str(path), **self._stats[part], "sha256": digest}
        return described

    def _hash(self, part: str) -> Future[str]:
        if part not in self._hashes:
            self._hashes[part] = self._pool.submit(sha256_of, self._paths[part])
        return self._hashes[part]


def _stat(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
