"""Where a batch of raw rows comes from, so that an error can name the row and the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.errors import UserError


@dataclass(frozen=True)
class Where:
    """Maps positions in a batch to rows of a file.

    Attributes:
        first_row: row of the batch's first row in the file.
        file: the file, where it is known.
        rows: (B,) row of each position, for a batch whose rows are not consecutive.
    """

    first_row: int = 0
    file: Path | None = None
    rows: NDArray[Any] | None = None

    def error(
        self, problem: str, column: str, at: int | None, value: object, remedy: str | None = None
    ) -> UserError:
        """The `UserError` for position `at` of the batch (None: the column as a whole)."""
        row = None
        if at is not None:
            row = int(self.rows[at]) if self.rows is not None else self.first_row + int(at)
        return UserError(
            problem, file=self.file, column=column, row=row, value=value, remedy=remedy
        )

    @contextmanager
    def reading(self, column: str) -> Iterator[None]:
        """Around code that reads a column: what Arrow or Python cannot decode becomes one line."""
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
        """The same for positions among the flat values of the batch's sequences."""
        rows = self.rows if self.rows is not None else self.first_row + np.arange(len(offsets) - 1)
        return replace(self, rows=np.repeat(rows, np.diff(offsets)))
