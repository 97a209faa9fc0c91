"""The file and row numbers of a batch of raw rows, for errors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.errors import UserError
from tossctr.location import Location


@dataclass(frozen=True)
class Files:
    """Several files that are read as one.

    Attributes:
        folder: of the files.
        paths: the files, in order.
        ends: cumulative numbers of rows.
    """

    folder: Location
    paths: tuple[Location, ...]
    ends: tuple[int, ...]

    @property
    def order(self) -> str:
        """A line with the number of files and their order."""
        names = [str(path).removeprefix(f"{self.folder}/") for path in self.paths]
        if len(names) > 4:
            names = [*names[:2], "...", *names[-2:]]
        return f"{self.folder}: {len(self.paths)} files, read in this order: {', '.join(names)}"

    def find(self, row: int) -> tuple[Location, int]:
        """The file that contains a row, and its row number there."""
        index = min(bisect_right(self.ends, row), len(self.paths) - 1)
        return self.paths[index], row - (self.ends[index - 1] if index else 0)


RowsIn = Location | Files


@dataclass(frozen=True)
class Where:
    """Maps positions in a batch to row numbers of a file.

    Attributes:
        first_row: row number of the first row in the file.
        file: the file or files, if known.
        rows: (B,) row numbers, if they are not consecutive.
    """

    first_row: int = 0
    file: RowsIn | None = None
    rows: NDArray[Any] | None = None

    def error(
        self, problem: str, column: str, at: int | None, value: object, remedy: str | None = None
    ) -> UserError:
        """The `UserError` for position `at` of the batch (None: for the whole column)."""
        row = self.first_row + (at or 0)
        if self.rows is not None and len(self.rows):
            row = int(self.rows[at or 0])
        file = self.file
        if isinstance(file, Files):
            file, row = file.find(row)
        shown = None if at is None else row
        return UserError(problem, file=file, column=column, row=shown, value=value, remedy=remedy)

    @contextmanager
    def reading(self, column: str) -> Iterator[None]:
        """Turn decoding errors of Arrow or Python in the enclosed code into a `UserError`."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise self.error(
                "text that is not UTF-8", column, None, error.object[:20], "write it as UTF-8"
            ) from error
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise self.error(f"cannot be read: {reason}", column, None, None) from error

    def of_values(self, offsets: NDArray[Any]) -> Where:
        """The same for positions in the flat values of sequences."""
        rows = self.rows if self.rows is not None else self.first_row + np.arange(len(offsets) - 1)
        return replace(self, rows=np.repeat(rows, np.diff(offsets)))
