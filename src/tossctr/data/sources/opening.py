"""Open raw files: a file, a folder of files, or a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tossctr.config.nulls import NA_VALUES
from tossctr.config.schema import Dtype
from tossctr.data.encoded.source import EncodedSource
from tossctr.data.executor import LocalExecutor
from tossctr.data.sources.base import Source, require_columns
from tossctr.data.sources.files import files_in, folder_of, partition_of
from tossctr.data.sources.folder import FolderSource
from tossctr.data.sources.registry import FORMATS, format_of
from tossctr.data.where import Files
from tossctr.errors import UserError
from tossctr.location import Location, is_folder, located, require_file
from tossctr.progress import say


def open_source(
    path: Location,
    columns: Mapping[str, Dtype] | None = None,
    *,
    encoded: bool = False,
    na_values: Sequence[str] = NA_VALUES,
) -> Source:
    """Open a file, or a folder of files as one. The suffix tells the format (`FORMATS`); a file
    with another suffix must be Parquet.

    Columns in the names of folders (`dt=2026-01-01/part-0.parquet`) are read too: as integers or
    dates if all values are, else as text.

    Args:
        path: the file, the folder, or the URL of one.
        columns: columns to read (None: all), with the type to read them as. This matters for CSV,
            which has no types: a column not named here is text, so that hour '00' stays '00'.
        encoded: whether the values are indices of FuxiCTR's vocabulary; H5 files always hold them.
        na_values: texts of a CSV file that mean a missing value, as the empty text does.

    Raises:
        UserError: the file is missing, of another format, or lacks some of `columns`; it is
            encoded, with an unknown vocabulary.
    """
    path = located(path)
    types = dict(columns or {})
    key = format_of(path) or "parquet"
    if is_folder(path):
        source = _joined(path, files_in(path), types, na_values)
    elif partition_of(folder_of(path)) and FORMATS[key].in_folders:
        source = _joined(path, [path], types, na_values)
    else:
        source = _file(path, types, na_values)
    require_columns(source, types)
    if encoded or source.vocabulary is not None or FORMATS[key].encoded:
        source = EncodedSource(source)
    return source


def _file(path: Location, types: Mapping[str, Dtype], na_values: Sequence[str]) -> Source:
    key = format_of(path) or "parquet"
    if isinstance(path, Path):
        require_file(path)
    elif not FORMATS[key].remote:
        raise UserError(f"{key} files are not read from a URL", file=path, remedy="copy it here")
    return FORMATS[key].open(path, types, na_values)


def _joined(
    path: Location,
    files: list[Location],
    types: Mapping[str, Dtype],
    na_values: Sequence[str],
) -> Source:
    partitions = [partition_of(folder_of(file)) for file in files]
    # In threads: reading a footer from an object store takes several round trips.
    sources = list(LocalExecutor().map(lambda file: _file(file, types, na_values), files))
    return FolderSource(path, sources, partitions, tuple(types))


def say_order(source: Source) -> None:
    """Tell the user in which order the files of a folder are read."""
    if isinstance(source.file, Files) and len(source.file.paths) > 1:
        say(source.file.order)


def require_format(path: Location, data_format: str | None) -> None:
    """Check that a file or the files of a folder have the config's `data_format`.

    Raises:
        UserError: they do not.
    """
    found = format_of(files_in(path)[0] if is_folder(path) else path) or "parquet"
    if data_format not in (None, found):
        raise UserError(
            f"is read as {found} by its name, but the config says data_format: {data_format}",
            file=path,
            remedy="correct data_format, or leave it out",
        )
