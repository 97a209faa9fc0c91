"""The file formats that can be read, and the `Source` class of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from tossctr.config.schema import Dtype
from tossctr.location import Location, name_of

if TYPE_CHECKING:
    from tossctr.data.sources.base import Source


class SourceClass(Protocol):
    """What a `Source` class for one format is called with."""

    def __call__(
        self, path: Location, types: Mapping[str, Dtype], na_values: Sequence[str]
    ) -> Source:
        """Open a file.

        Args:
            path: the file.
            types: the columns to read (none: all), and their types if the format has none.
            na_values: texts that mean a missing value if the format has no nulls.

        Raises:
            UserError: the file cannot be read.
        """
        ...


@dataclass(frozen=True)
class FileFormat:
    """A format.

    Attributes:
        source: module and class, `package.module:Class`, imported when the first file is opened.
        suffixes: endings of file names, in lower case.
        in_folders: whether a folder of such files can be read as one file.
        remote: whether a file can be read from a URL.
        encoded: whether the files hold indices of a vocabulary, never raw values.
    """

    source: str
    suffixes: tuple[str, ...]
    in_folders: bool = True
    remote: bool = True
    encoded: bool = False

    def open(self, path: Location, types: Mapping[str, Dtype], na_values: Sequence[str]) -> Source:
        """See `SourceClass`."""
        module, _, name = self.source.partition(":")
        return cast(SourceClass, getattr(import_module(module), name))(path, types, na_values)


_COMPRESSED = ("", ".gz", ".bz2", ".zst")

FORMATS: dict[str, FileFormat] = {
    "parquet": FileFormat("tossctr.data.sources.parquet:ParquetSource", (".parquet",)),
    "csv": FileFormat(
        "tossctr.data.sources.csv:CsvSource",
        tuple(suffix + packed for suffix in (".csv", ".tsv") for packed in _COMPRESSED),
    ),
    "h5": FileFormat(
        "tossctr.data.sources.h5:H5Source",
        (".h5", ".hdf5"),
        in_folders=False,
        remote=False,
        encoded=True,
    ),
}


def format_of(location: Location) -> str | None:
    """The key in `FORMATS` of the format that a file's name ends in; None for any other name."""
    name = name_of(location).lower()
    return next((key for key, form in FORMATS.items() if name.endswith(form.suffixes)), None)
