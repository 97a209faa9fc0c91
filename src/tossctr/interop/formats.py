"""Export formats, separate from their implementation so that the command line starts fast."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """File formats of FuxiCTR: H5 with a dataset per column, or Parquet."""

    H5 = "fuxictr-h5"
    PARQUET = "fuxictr-parquet"

    @property
    def suffix(self) -> str:
        return ".h5" if self is Format.H5 else ".parquet"
