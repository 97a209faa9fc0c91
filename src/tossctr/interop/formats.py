"""The names of FuxiCTR's files, apart from what writes them: the command line is quick to ask."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What files to write: one dataset a column, or one list column a sequence."""

    H5 = "fuxictr-h5"
    PARQUET = "fuxictr-parquet"

    @property
    def suffix(self) -> str:
        return ".h5" if self is Format.H5 else ".parquet"
