"""Folders and files that this package made, told from those that users own, and how they are
replaced.

A folder of ours holds an empty file `.tossctr-<kind>`; one without it is neither moved nor removed.
A result is made in `<name>.partial` and renamed to `<name>` when it is whole; an earlier result of
that name is kept as `<name>.1`, `<name>.2`, ... A kill between two steps loses nothing: the same
command does the rest.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tossctr.artefact import read_json, sealed, unsealed
from tossctr.errors import UserError
from tossctr.files import remove, sync_file, sync_folder, temporary_name, write_json, writing
from tossctr.progress import say

Kind = Literal["run", "folds", "blend", "store", "scores", "study", "synthetic", "export", "ray"]
MADE_FROM = "made_from.json"  # in an unfinished folder and in the finished one: what it is made of


def is_made(folder: Path, kind: Kind) -> bool:
    """Whether the folder carries our mark."""
    return folder.is_dir() and (folder / f".tossctr-{kind}").is_file()


def refuse_foreign(folder: Path, kind: Kind) -> None:
    """Refuse a place that holds what is not ours; an empty folder may be used.

    Raises:
        UserError: a file, or a folder with something in it and without our mark.
    """
    if not os.path.lexists(folder) or is_made(folder, kind):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(
            f"is in the way, and was not made as a {kind} by TossCTR",
            file=folder,
            remedy="move it away, or choose another place",
        )


def mark(folder: Path, kind: Kind, *, among_others: bool = False) -> None:
    """Make the folder, if need be, with our mark.

    Args:
        folder: where the mark goes.
        kind: what is made in it.
        among_others: it may hold other files, and is never removed as a whole.

    Raises:
        UserError: there is something else in it, or the disk refuses.
    """
    if not among_others:
        refuse_foreign(folder, kind)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".tossctr-{kind}").touch()


def remove_made(folder: Path, kind: Kind) -> None:
    """Remove a folder of ours with all that is in it, if it is there.

    What says that it is whole goes first and the mark last, so that after a kill the rest is
    neither taken for a result nor for a user's own.

    Raises:
        UserError: it is not ours, or the disk refuses.
    """
    refuse_foreign(folder, kind)
    if not os.path.lexists(folder):
        return
    with writing(folder):
        for path in sorted(folder.iterdir(), key=_order_of_removal):
            remove(path)
        folder.rmdir()


def _order_of_removal(path: Path) -> tuple[bool, bool, bool]:
    return path.name.startswith(".tossctr-"), path.suffix != ".json", path.name != MADE_FROM


def unfinished(final: Path, kind: Kind) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The unfinished folders of a result, each with what it is made from; remains of removed ones
    and what is not ours are left out."""
    if not final.parent.is_dir():
        return
    for folder in sorted(final.parent.iterdir()):
        if folder.name.startswith(f"{final.name}.partial") and is_unfinished(folder.name):
            made_from = made_from_of(folder, kind)
            if made_from is not None:
                yield folder, made_from


def made_from_of(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """What a folder of ours says that it is made from; None where it does not say, or the file has
    changed since it was written."""
    return unsealed(_json(folder / MADE_FROM)) if is_made(folder, kind) else None


def write_made_from(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Say what a folder is made from; errors as `write_json`."""
    write_json(folder / MADE_FROM, sealed(made_from))


def find_unfinished(final: Path, kind: Kind, made_from: Mapping[str, Any]) -> Path | None:
    """The unfinished folder of a result made from just this."""
    return next((folder for folder, of in unfinished(final, kind) if of == made_from), None)


def new_unfinished(final: Path, kind: Kind) -> Path:
    """A marked, empty folder to make a result in; of no use to another call before its
    `made_from.json` is written.

    Unfinished folders made from something else stay.

    Raises:
        UserError: the disk refuses.
    """
    number = 1
    while True:
        folder = final.with_name(f"{final.name}.partial" + (f".{number}" if number > 1 else ""))
        if is_made(folder, kind) and not (folder / MADE_FROM).exists():
            remove_made(folder, kind)  # the remains of one that was being removed, or begun
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            mark(folder, kind)
            return folder
        number += 1


def remove_result(final: Path, kind: Kind) -> None:
    """Remove a result of ours and what is unfinished of it, if they are there.

    Raises:
        UserError: the result is not ours, or the disk refuses.
    """
    remove_made(final, kind)
    for folder in list(final.parent.glob(f"{glob.escape(final.name)}.partial*")):
        if is_unfinished(folder.name) and is_made(folder, kind):
            remove_made(folder, kind)


def is_unfinished(name: str) -> bool:
    """Whether a folder's name is that of an unfinished result."""
    return re.fullmatch(r".+\.partial(\.\d+)?", name) is not None


def put_in_place(folder: Path, final: Path, kind: Kind) -> None:
    """Rename a whole folder to its final name; an earlier one is kept under the next free name.

    Raises:
        UserError: what is there is not ours, or the disk refuses.
    """
    refuse_foreign(final, kind)
    with writing(final):
        sync_folder(folder)
        keep_earlier(final)
        folder.rename(final)
        sync_folder(final.parent)


def keep_earlier(path: Path) -> None:
    """Rename an earlier result, if there is one, to the next free name, and say so."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    number = 1
    while os.path.lexists(other := path.with_name(f"{path.name}.{number}")):
        number += 1
    path.rename(other)
    say(f"the earlier {path.name} is kept as {other}")


@contextmanager
def whole_files(
    folder: Path,
    kind: Kind,
    names: Sequence[str],
    *,
    remedy: str = "choose another folder",
    force: bool = False,
) -> Iterator[Path]:
    """Write files that belong together into a folder where a user's own files may be too.

    Yields an empty folder to write them in; on success they replace the earlier ones together. The
    mark keeps size and time of what was written, so that a file that a user put there since is
    known. After an exception nothing is left.

    Args:
        folder: made if missing.
        kind: what writes them.
        names: of the files; not all need be written.
        remedy: for the error.
        force: replace what is not ours too.

    Raises:
        UserError: a file of that name was not written by us, or the disk refuses.
    """
    if not force:
        refuse_foreign_files(folder, kind, names, remedy)
    record = folder / f".tossctr-{kind}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(folder / kind)
        temporary.mkdir()
    try:
        with _named_in(folder, temporary):
            yield temporary
        with writing(folder):
            kept = {k: v for k, v in _written(folder, kind).items() if (folder / k).exists()}
            made = {name: temporary / name for name in names if (temporary / name).exists()}
            for file in made.values():
                sync_file(file)
            new = {name: [_stamp(file)] for name, file in made.items()}
            both = {name: kept.get(name, []) + new.get(name, []) for name in {**kept, **new}}
            write_json(record, {"whole": False, "files": both})
            for name, file in made.items():
                os.replace(file, folder / name)
            sync_folder(folder)
            write_json(record, {"whole": True, "files": {**kept, **new}})
    finally:
        remove(temporary)


@contextmanager
def _named_in(folder: Path, temporary: Path) -> Iterator[None]:
    """Let errors in temporary files name the files that they were to become."""
    try:
        with writing(folder):
            yield
    except UserError as error:
        if error.file is not None:
            error.file = error.file.replace(str(temporary), str(folder))
            error.args = (error.line(),)
        raise


def refuse_foreign_files(
    folder: Path, kind: Kind, names: Sequence[str], remedy: str = "choose another folder"
) -> None:
    """Refuse to replace files that `whole_files` did not write.

    Raises:
        UserError: there is one of these names.
    """
    written = _written(folder, kind)
    for name in names:
        file = folder / name
        if os.path.lexists(file) and (
            not file.is_file() or file.is_symlink() or _stamp(file) not in written.get(name, [])
        ):
            raise UserError(
                "is there, and not as TossCTR wrote it",
                file=file,
                remedy=remedy,
            )


def is_interrupted(folder: Path, kind: Kind) -> bool:
    """Whether `whole_files` was killed while it put its files in place."""
    record = _json(folder / f".tossctr-{kind}")
    return isinstance(record, dict) and record.get("whole") is False


def _written(folder: Path, kind: Kind) -> dict[str, list[Any]]:
    record = _json(folder / f".tossctr-{kind}")
    files = record.get("files") if isinstance(record, dict) else None
    return files if isinstance(files, dict) else {}


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _json(file: Path) -> Any:
    """The content of a JSON file; None where there is none."""
    try:
        return read_json(file)
    except UserError:
        return None
