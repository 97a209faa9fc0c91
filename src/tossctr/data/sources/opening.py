"""Open raw files: a file, a folder of files, or a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tossctr.config.nulls import NA_VALUES
from tossctr.config.schema import Dtype
from tossctr.data.encoded.source import EncodedSource
from tossctr.data.executor import LocalExecutor
from tossctr.data.sources.base import Source, require_columns
from tossctr.data.sources.csv import CsvSource
from tossctr.data.sources.folder import FolderSource
from tossctr.data.sources.h5 import H5Source
from tossctr.data.sources.parquet import ParquetSource
from tossctr.data.where import Files
from tossctr.errors import UserError
from tossctr.location import (
    Form,
    Location,
    files_in,
    folder_of,
    form_of,
    is_folder,
    located,
    partition_of,
    require_file,
)
from tossctr.progress import say


def open_source(
    path: Location,
    columns: Mapping[str, Dtype] | None = None,
    *,
    encoded: bool = False,
    na_values: Sequence[str] = NA_VALUES,
) -> Source:
    """Open a file by its suffix, or a folder of files as one: `.csv` or `.tsv`, as they are or
    compressed (`.gz`, `.bz2`, `.zst`); `.h5` or `.hdf5`; anything else must be Parquet.

    Columns that stand in the names of folders (`dt=2026-01-01/part-0.parquet`) are read too, as
    whole numbers or dates where all values are, else as text.

    Args:
        path: the file or the folder, of Parquet or of CSV files.
        columns: columns the caller needs (None: all), with the type to read them as. A CSV file has
            no types of its own: a column not named here is text, so that hour '00' stays '00'. A
            Parquet file keeps its own types.
        encoded: a Parquet file holds FuxiCTR's indices, as an H5 file always does.
        na_values: fields of a CSV file that are missing, beside the empty one.

    Raises:
        UserError: the file is missing, of another format, or lacks some of `columns`; it is
            encoded, and nothing says with which vocabulary.
    """
    path = located(path)
    types = dict(columns or {})
    if is_folder(path):
        source = _joined(path, files_in(path), types, na_values)
    elif partition_of(folder_of(path)) and form_of(path) != "h5":
        source = _joined(path, [path], types, na_values)
    else:
        source = _file(path, types, na_values)
    require_columns(source, types)
    if encoded or source.vocabulary is not None or form_of(path) == "h5":
        source = EncodedSource(source)
    return source


def _file(path: Location, types: Mapping[str, Dtype], na_values: Sequence[str]) -> Source:
    if isinstance(path, Path):
        require_file(path)
    form = form_of(path)
    if form == "csv":
        return CsvSource(path, types, na_values)
    if form == "h5":
        if not isinstance(path, Path):
            raise UserError("H5 is not read from a URL", file=path, remedy="copy the file here")
        return H5Source(path, types)
    return ParquetSource(path, types)


def _joined(
    path: Location,
    files: list[Location],
    types: Mapping[str, Dtype],
    na_values: Sequence[str],
) -> Source:
    partitions = [partition_of(folder_of(file)) for file in files]
    # Threads, because a footer in an object store is a few round trips.
    parts = list(LocalExecutor().map(lambda file: _file(file, types, na_values), files))
    return FolderSource(path, parts, partitions, tuple(types))


def say_order(source: Source) -> None:
    """Tell the user in which order the files of a folder are read."""
    if isinstance(source.file, Files) and len(source.file.paths) > 1:
        say(source.file.order)


def require_form(path: Location, form: Form | None) -> None:
    """Check that a file, or the files of a folder, have the format that a config says.

    Raises:
        UserError: they have another.
    """
    found = form_of(files_in(path)[0] if is_folder(path) else path) or "parquet"
    if form is not None and found != form:
        raise UserError(
            f"is read as {found} by its name, but the config says data_format: {form}",
            file=path,
            remedy="correct data_format, or leave it out",
        )
