"""Atomic writes, hashes of files, and lock files."""

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
    errno.EACCES: "choose a writable folder",
    errno.EPERM: "choose a writable folder",
    errno.EROFS: "choose a writable folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs: the system limit on open files is reached",
}


def refused(error: OSError, problem: str, path: Path | None) -> UserError:
    """The error for a failed system call."""
    return UserError(
        f"{problem}: {error.strerror or error}",
        file=path or error.filename,
        remedy=_REMEDIES.get(error.errno or 0, "check the folder and its disk"),
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the enclosed code into a `UserError`.

    Raises:
        UserError: the disk is full, the folder is read-only or missing, or the path is a folder.
    """
    try:
        yield
    except OSError as error:
        raise refused(error, "cannot be written", path) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a new, empty file next to `path`; on success sync it and rename it to `path`.

    After an exception the new file is removed and an earlier `path` is unchanged. Temporary files
    of killed processes are removed. The file mode is the default for new files (umask).

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, mode = new_temporary(path)
        try:
            yield temporary
            temporary.chmod(mode)  # some libraries replace the file
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def new_temporary(path: Path) -> tuple[Path, int]:
    """A new, empty file next to `path` that no other process uses, and its mode."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return temporary, stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """A unique name next to `path`. Temporary files of killed processes of this machine are
    removed."""
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
    """An id of this machine or container. Others may share the folder, but not the process ids."""
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
        pass  # running, as another user
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; keys keep their order."""
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
    """Remove a file, a link (not its target) or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file. The system releases the lock when the process ends, even if it is killed.

    The file holds the process id and machine, for messages, and is removed on release.

    Args:
        file: the lock file.
        what: the locked result, for messages.
        wait: wait for another process instead of refusing.

    Raises:
        UserError: another process holds the lock, or the file is not a lock file.
    """
    while True:
        handle = opened_lock(file)
        try:
            # A record lock: loader processes of a killed run would inherit and keep an flock.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(handle, _LOCK_BYTES).decode("ascii", "replace").strip() or "unknown"
            if not wait:
                os.close(handle)
                raise UserError(
                    f"process {holder} is using {what}",
                    file=file,
                    remedy="wait until it has ended, or choose another folder",
                ) from error
            say(f"waiting for process {holder}, which is using {what}")
            fcntl.lockf(handle, fcntl.LOCK_EX)
        if _is_at(handle, file):
            break
        os.close(handle)  # the holder has removed it, and another process may hold a new file
    try:
        with suppress(OSError):  # on a full disk the lock works without the process id
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
    """Open a lock file for writing; links and files of another content are refused."""
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
    raise UserError("is not a lock file of TossCTR", file=file, remedy="move it away")


def _is_at(handle: int, file: Path) -> bool:
    """Whether an open file still has that name."""
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False
