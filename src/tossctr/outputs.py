"""Files at places that users name: what TossCTR did not write there is never replaced unasked.

Beside each such file lies `.<name>.written` with the SHA-256 of what was written. A file with
another content, or without that record, is somebody's own. A device or a pipe is written to and
stays what it is.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tossctr.errors import UserError
from tossctr.files import sha256_of, whole_file, write_json, writing
from tossctr.location import Location, resolved, same_place

VERSION = 1
_LINKS = 40  # more are a circle


def is_stream(path: Path) -> bool:
    """Whether what is written there goes to a device, a pipe or an open file of a process, such as
    /dev/null or /dev/stdout (whatever that leads to)."""
    path = path.absolute()
    for _ in range(_LINKS):
        if path.parts[1:2] in (("dev",), ("proc",)) and path.parts[2:3] != ("shm",):
            return True
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def is_standard_output(path: Path) -> bool:
    """Whether it is what this process prints its results to."""
    try:
        return is_stream(path) and os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # not there, or no standard output that is a file
        return False


def check_output(path: Path, *, inputs: Iterable[Location] = (), force: bool = False) -> Path:
    """The file that an output goes to: `path`, or what it links to.

    Args:
        path: as the user gave it.
        inputs: files, and folders of files, that are read: the output may be none of them.
        force: replace what TossCTR did not write.

    Raises:
        UserError: it is a folder, an input, a block device or a socket, or holds something that
            TossCTR did not write.
    """
    if is_stream(path):
        return path
    target = resolved(path)
    for given in inputs:
        if same_place(target, given) or (isinstance(given, Path) and _is_inside(target, given)):
            raise UserError(
                f"is the output, but {given} is read", file=path, remedy="choose another --output"
            )
    if target.is_dir():
        raise UserError("is a folder", file=path, remedy="name a file in it as --output")
    if target.is_symlink():
        raise UserError("is a link to itself", file=path, remedy="choose another --output")
    if not target.exists():
        return target
    if not target.is_file():
        raise UserError("is neither a file nor a pipe", file=path, remedy="name a file as --output")
    if not force and not _is_ours(target):
        raise UserError(
            "is there, and not as TossCTR wrote it",
            file=path,
            remedy="choose another --output, or replace it with --force",
        )
    return target


@contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path; on success its content goes to `path`, whole, and is recorded.

    Raises:
        UserError: as `check_output`; or the disk refuses.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "output"
            yield temporary
            with writing(path), temporary.open("rb") as content, _open_stream(path) as stream:
                shutil.copyfileobj(content, stream)
        return
    with whole_file(path) as temporary:
        yield temporary
        check_output(path, force=force)  # again: hours may have gone by
        new = sha256_of(temporary)
        earlier = [sha256_of(path)] if path.exists() else []
        # Both, before the file is replaced: whenever a kill comes, what is there is known as ours.
        _keep_record(path, [*earlier, new])
    _keep_record(path, [new])


def _open_stream(path: Path) -> BinaryIO:
    """Open a stream to add to it. It may lead to a file (`--output /dev/stdout >> all.csv`), whose
    earlier content stays; the descriptors are used as they are, so that their position moves on."""
    for number, standard in ((1, sys.stdout), (2, sys.stderr)):
        try:
            same = os.path.samestat(path.stat(), os.fstat(number))
        except OSError:  # not there, or closed
            continue
        if same:
            standard.flush()
            return os.fdopen(os.dup(number), "wb")
    return path.open("ab")


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.written")


def _keep_record(path: Path, sha256: list[str]) -> None:
    write_json(_record(path), {"version": VERSION, "sha256": sha256})


def _is_ours(path: Path) -> bool:
    if path.stat().st_size == 0:
        return True  # nothing is lost
    record = _record(path)
    try:
        if record.is_symlink() or not record.is_file():
            return False
        about = json.loads(record.read_bytes())
        return about["version"] == VERSION and sha256_of(path) in about["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_inside(path: Path, folder: Path) -> bool:
    return folder.is_dir() and path.is_relative_to(resolved(folder))
