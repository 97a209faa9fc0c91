"""Files written whole or not at all, their hashes, and locks that keep two runs apart."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tossctr.errors import UserError
from tossctr.progress import say

_REMEDIES = {
    errno.ENOSPC: "free some space, then give the same command again",
    errno.EDQUOT: "free some space, then give the same command again",
    errno.EFBIG: "raise the limit on file sizes, then give the same command again",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs: the system has no more open files to give",
}


def refused(error: OSError, problem: str, path: Path | None) -> UserError:
    """What the system refuses, as one line."""
    return UserError(
        f"{problem}: {error.strerror or error}",
        file=path or error.filename,
        remedy=_REMEDIES.get(error.errno or 0, "look at the folder and its disk"),
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes: what the disk refuses becomes one line.

    Raises:
        UserError: the disk is full, the folder read-only or gone, the path a folder.
    """
    try:
        yield
    except OSError as error:
        raise refused(error, "cannot be written", path) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it there.

    After an exception nothing is left, and an earlier `path` is as it was. What a killed process
    left is swept up.

    Raises:
        UserError: the disk refuses.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        _sweep(path)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the temporary files of processes that are no more."""
    prefix = f".{path.name}."
    for left in path.parent.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(".tmp"):
            pid = left.name[len(prefix) : -len(".tmp")]
            if pid.isdecimal() and not _is_running(int(pid)):
                left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # there, but another user's
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole; keys in the order given."""
    with whole_file(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder with all that is in it, if there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, what: str, *, wait: bool = False, keep: bool = True) -> Iterator[None]:
    """Hold a lock file, which the system releases whatever way the process ends.

    Args:
        file: the lock file.
        what: what it guards, for the message.
        wait: wait for another process instead of refusing.
        keep: leave the file in place, as `wait` needs it.

    Raises:
        UserError: another process holds it.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not "w": that would wipe the holder's number.
        handle = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o644), "r+")
    with handle:
        try:
            # A record lock, because flock's would live on in a killed run's loader processes.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = handle.read(20).strip() or "unknown"
            if not wait:
                raise UserError(
                    f"process {holder} is at work in {what}",
                    file=file,
                    remedy="wait until it has ended, or choose another folder",
                ) from error
            say(f"waiting for process {holder}, which is at work in {what}")
            fcntl.lockf(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        try:
            yield
        finally:
            if not keep:
                file.unlink(missing_ok=True)
