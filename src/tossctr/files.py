"""Files written whole or not at all, their hashes, and locks that keep two runs apart."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
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
    """Yield a new, empty file beside `path`; on success sync it and rename it to `path`.

    After an exception nothing is left, and an earlier `path` is as it was. What a killed process
    left is removed. The rights are those that the process gives to new files, whatever wrote it.

    Raises:
        UserError: the disk refuses.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, mode = new_temporary(path)
        try:
            yield temporary
            temporary.chmod(mode)  # some libraries replace the file by another
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def new_temporary(path: Path) -> tuple[Path, int]:
    """A new, empty file beside `path` that no other process uses, and its rights."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return temporary, stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses. What killed processes of this machine left
    under such names is removed."""
    left = re.compile(rf"\.{re.escape(path.name)}\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.tmp")
    for other in path.parent.iterdir():
        match = left.fullmatch(other.name)
        if match is not None and not _is_running(int(match[1])):
            remove(other)
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@cache
def _machine() -> str:
    """Tells apart the machines and containers that share a folder: their process ids mean nothing
    to each other."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


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
def locked(file: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, which the system releases whatever way the process ends.

    The file is removed on release. It holds the process's number and machine, for the message.

    Args:
        file: the lock file.
        what: what it guards, for the message.
        wait: wait for another process instead of refusing.

    Raises:
        UserError: another process holds it, or something else has that name.
    """
    while True:
        handle = opened_lock(file)
        try:
            # A record lock, because flock's would live on in a killed run's loader processes.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(handle, _LOCK_BYTES).decode("ascii", "replace").strip() or "unknown"
            if not wait:
                os.close(handle)
                raise UserError(
                    f"process {holder} is at work in {what}",
                    file=file,
                    remedy="wait until it has ended, or choose another folder",
                ) from error
            say(f"waiting for process {holder}, which is at work in {what}")
            fcntl.lockf(handle, fcntl.LOCK_EX)
        if _is_at(handle, file):
            break
        os.close(handle)  # its holder has removed it: another process may hold a new one
    try:
        with suppress(OSError):  # a full disk: the lock holds without its holder's number
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        if _is_at(handle, file):
            file.unlink(missing_ok=True)
        os.close(handle)


_LOCK_BYTES = 300
_LOCK = re.compile(rb"(\d+( on [^\n]*)?\n)?")


def opened_lock(file: Path) -> int:
    """A lock file opened for writing: nothing that is not one is written to, nor where a link
    leads."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(file, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise
            handle = None
    if handle is not None:
        found = os.fstat(handle)
        if (
            stat.S_ISREG(found.st_mode)
            and found.st_nlink <= 1
            and _LOCK.fullmatch(os.pread(handle, _LOCK_BYTES, 0))
        ):
            return handle
        os.close(handle)
    raise UserError("is no lock file of TossCTR", file=file, remedy="move it away")


def _is_at(handle: int, file: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False
