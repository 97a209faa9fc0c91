"""The files of a folder, and the columns in the names of folders."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from tossctr.data.sources.registry import FORMATS, format_of
from tossctr.errors import UserError
from tossctr.location import Location, file_system, name_of

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def files_in(folder: Location) -> list[Location]:
    """The data files in a folder and its subfolders, in the natural order of their names (`part-2`
    before `part-10`). Names that begin with `_` or `.` are skipped, as Spark and Hive do.

    Raises:
        UserError: there is none, they have several formats, or the server cannot be reached.
    """
    found: list[Location]
    if isinstance(folder, Path):
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        found = [folder / name for name in sorted(filter(_is_data, names), key=_natural)]
    else:
        with file_system(folder) as (system, path):
            prefix = path.rstrip("/") + "/"
            names = [str(p).removeprefix(prefix) for p in system.find(path)]
        found = [f"{folder}/{name}" for name in sorted(filter(_is_data, names), key=_natural)]
    by_format = {format_of(file): file for file in reversed(found)}
    if len(by_format) > 1:
        raise UserError(
            f"a folder of files in several formats: {', '.join(map(name_of, by_format.values()))}",
            file=folder,
            remedy="keep files of one format in a folder",
        )
    if not any(FORMATS[key].in_folders for key in by_format if key is not None):
        suffixes = [form.suffixes[0] for form in FORMATS.values() if form.in_folders]
        raise UserError(
            f"a folder without any {' or '.join(suffixes)} file",
            file=folder,
            remedy="give a file or its folder",
        )
    return found


def folder_of(location: Location) -> Location:
    """The folder that holds a file."""
    if isinstance(location, Path):
        return location.parent
    return location.rsplit("/", 1)[0]


def partition_of(folder: Location) -> dict[str, str | None]:
    """The columns in the last names of a folder's path, as Hive writes them: `dt` and `hour` in
    `day/dt=2026-01-01/hour=7`."""
    found: dict[str, str | None] = {}
    for part in reversed(PurePosixPath(str(folder)).parts):
        key, equals, value = part.partition("=")
        if not key or not equals:
            break
        found[unquote(key)] = None if value == _HIVE_NULL else unquote(value)
    return dict(reversed(found.items()))


def _natural(name: str) -> tuple[list[list[tuple[str, int]]], str]:
    """A sort key by folder, with numbers in names compared by value."""
    runs = [re.findall("([^0-9]*)([0-9]*)", part) for part in name.split("/")]
    return [[(text, int(digits or -1)) for text, digits in part] for part in runs], name


def _is_data(name: str) -> bool:
    hidden = any(part[0] in "_." for part in name.split("/") if part)
    return not hidden and format_of(name) is not None
