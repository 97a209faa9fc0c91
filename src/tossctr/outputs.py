"""Output files at paths that users give. Files that TossCTR did not write are replaced only with
`--force`.

Next to an output, `.<name>.written` records its SHA-256; a file with other content or without that
record is not TossCTR's. Devices and pipes are written to.
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
_LINKS = 40  # a longer chain is a circle


def is_stream(path: Path) -> bool:
    """Whether the path is a device, a pipe or an open file of a process, such as /dev/null or
    /dev/stdout."""
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
    """Whether the path is the standard output of this process."""
    try:
        return is_stream(path) and os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # missing, or standard output has no descriptor
        return False


def check_output(path: Path, *, inputs: Iterable[Location] = (), force: bool = False) -> Path:
    """Check an output path, and resolve its links.

    Args:
        path: as the user gave it.
        inputs: files and folders that are read, which the output must not replace.
        force: replace a file that TossCTR did not write.

    Returns:
        The file to write.

    Raises:
        UserError: it is a folder, an input, a block device, a socket, or a file that TossCTR did
            not write.
    """
    if is_stream(path):
        return path
    target = resolved(path)
    for given in inputs:
        if same_place(target, given) or (isinstance(given, Path) and _is_inside(target, given)):
            raise UserError(
                f"is part of the input {given}", file=path, remedy="choose another --output"
            )
    if target.is_dir():
        raise UserError("is a folder", file=path, remedy="give a file in it as --output")
    if target.is_symlink():
        raise UserError("is a link to itself", file=path, remedy="choose another --output")
    if not target.exists():
        return target
    if not target.is_file():
        raise UserError("is neither a file nor a pipe", file=path, remedy="give a file as --output")
    if not force and not _is_ours(target):
        raise UserError(
            "exists, and TossCTR did not write it",
            file=path,
            remedy="choose another --output, or replace it with --force",
        )
    return target


@contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `path` atomically, and its hash is recorded.

    Raises:
        UserError: as `check_output`; or the file cannot be written.
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
        check_output(path, force=force)  # again: hours may have passed
        new = sha256_of(temporary)
        earlier = [sha256_of(path)] if path.exists() else []
        # Both hashes before the file is replaced: after a kill, either content is recognised.
        _keep_record(path, [*earlier, new])
    _keep_record(path, [new])


def _open_stream(path: Path) -> BinaryIO:
    """Open a stream for appending. Standard output may be a file (`--output /dev/stdout >>
    all.csv`), so its own descriptor is used: the position advances and earlier content is kept."""
    for number, standard in ((1, sys.stdout), (2, sys.stderr)):
        try:
            same = os.path.samestat(path.stat(), os.fstat(number))
        except OSError:  # missing or closed
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
        return True  # an empty file can be replaced
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
