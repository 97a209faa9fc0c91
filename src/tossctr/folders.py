"""Create, replace and remove result folders without touching what users own.

A folder made by TossCTR holds an empty marker file `.tossctr-<kind>`; others are neither moved nor
removed. A result is written to `<name>.partial` and renamed to `<name>` once it is complete; an
earlier result is kept as `<name>.1`, `<name>.2`, ... After a kill, the same command continues.
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
MADE_FROM = "made_from.json"  # config and inputs of a result, finished or not


def is_made(folder: Path, kind: Kind) -> bool:
    """Whether the folder has the marker file."""
    return folder.is_dir() and (folder / f".tossctr-{kind}").is_file()


def refuse_foreign(folder: Path, kind: Kind) -> None:
    """Check that a folder is missing, empty, or made by TossCTR.

    Raises:
        UserError: it is a file, or a folder with content and without the marker file.
    """
    if not os.path.lexists(folder) or is_made(folder, kind):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(
            "already exists, and TossCTR did not make it",
            file=folder,
            remedy="move it, or choose another folder",
        )


def mark(folder: Path, kind: Kind, *, among_others: bool = False) -> None:
    """Create the folder if it is missing, and the marker file in it.

    Args:
        folder: gets the marker file.
        kind: of result.
        among_others: the folder may hold files of the user.

    Raises:
        UserError: it holds files of the user, or cannot be written.
    """
    if not among_others:
        refuse_foreign(folder, kind)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".tossctr-{kind}").touch()


def remove_made(folder: Path, kind: Kind) -> None:
    """Remove a folder that TossCTR made, if it exists.

    The JSON files, which mark it as complete, go first and the marker file last, so that after a
    kill the rest is neither a result nor mistaken for a user's folder.

    Raises:
        UserError: TossCTR did not make it, or it cannot be removed.
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
    """The unfinished folders of a result with their `made_from`; not partly removed or users'."""
    if not final.parent.is_dir():
        return
    for folder in sorted(final.parent.iterdir()):
        if folder.name.startswith(f"{final.name}.partial") and is_unfinished(folder.name):
            made_from = made_from_of(folder, kind)
            if made_from is not None:
                yield folder, made_from


def made_from_of(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """The `made_from` of a folder; None if it has none, or one that was changed after writing."""
    return unsealed(_json(folder / MADE_FROM)) if is_made(folder, kind) else None


def write_made_from(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write what a folder is made from; errors as `write_json`."""
    write_json(folder / MADE_FROM, sealed(made_from))


def find_unfinished(final: Path, kind: Kind, made_from: Mapping[str, Any]) -> Path | None:
    """The unfinished folder of a result with this `made_from`."""
    return next((folder for folder, of in unfinished(final, kind) if of == made_from), None)


def find_same(
    final: Path, kind: Kind, made_from: Mapping[str, Any], *, fresh: bool = False
) -> Path | None:
    """The unfinished folder of a result with this `made_from`, else `final` if it has it.

    Args:
        fresh: remove the unfinished folder, and return None.

    Raises:
        UserError: TossCTR did not make `final`, or the folder cannot be removed.
    """
    refuse_foreign(final, kind)
    same = find_unfinished(final, kind, made_from)
    if fresh:
        if same is not None:
            remove_made(same, kind)
        return None
    return final if same is None and made_from_of(final, kind) == made_from else same


def new_unfinished(final: Path, kind: Kind) -> Path:
    """Create an empty folder for a result, which counts as unfinished once it has a `made_from`.

    Other unfinished folders are kept, with a message.

    Raises:
        UserError: it cannot be created.
    """
    for folder, _ in unfinished(final, kind):
        say(f"{folder} is unfinished, for another config or other data, and is kept")
    number = 1
    while True:
        folder = final.with_name(f"{final.name}.partial" + (f".{number}" if number > 1 else ""))
        if is_made(folder, kind) and not (folder / MADE_FROM).exists():
            remove_made(folder, kind)  # left by a kill while it was created or removed
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            mark(folder, kind)
            return folder
        number += 1


def remove_result(final: Path, kind: Kind) -> None:
    """Remove a result and its unfinished folders, if they exist.

    Raises:
        UserError: TossCTR did not make the result, or it cannot be removed.
    """
    remove_made(final, kind)
    for folder in list(final.parent.glob(f"{glob.escape(final.name)}.partial*")):
        if is_unfinished(folder.name) and is_made(folder, kind):
            remove_made(folder, kind)


def is_unfinished(name: str) -> bool:
    """Whether a folder's name is that of an unfinished result."""
    return re.fullmatch(r".+\.partial(\.\d+)?", name) is not None


def put_in_place(folder: Path, final: Path, kind: Kind) -> None:
    """Rename a complete folder to its final name; an earlier one is kept under the next free name.

    Raises:
        UserError: TossCTR did not make the earlier one, or the disk fails.
    """
    refuse_foreign(final, kind)
    with writing(final):
        sync_folder(folder)
        keep_earlier(final)
        folder.rename(final)
        sync_folder(final.parent)


def keep_earlier(path: Path) -> None:
    """Rename an earlier result, if there is one, to the next free name, with a message."""
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
    """Write a set of files into a folder that may hold files of the user too.

    Yields an empty folder to write to; on success the files replace the earlier ones. The marker
    file records their sizes and times, which tells them from files of the user. After an exception
    the folder is unchanged.

    Args:
        folder: created if missing.
        kind: of result.
        names: of the files; some may be left out.
        remedy: for the error.
        force: replace files that TossCTR did not write.

    Raises:
        UserError: TossCTR did not write a file of one of these names, or the disk fails.
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
    """Replace temporary paths in errors by the final ones."""
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
    """Check that files may be replaced because `whole_files` wrote them.

    Raises:
        UserError: it did not write one of these names, or the file has changed since.
    """
    written = _written(folder, kind)
    for name in names:
        file = folder / name
        if os.path.lexists(file) and (
            not file.is_file() or file.is_symlink() or _stamp(file) not in written.get(name, [])
        ):
            raise UserError("exists, and TossCTR did not write it", file=file, remedy=remedy)


def is_interrupted(folder: Path, kind: Kind) -> bool:
    """Whether `whole_files` was killed while it replaced files."""
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
    """The content of a JSON file; None if it is missing or damaged."""
    try:
        return read_json(file)
    except UserError:
        return None
