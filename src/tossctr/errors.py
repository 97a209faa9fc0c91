"""Errors that are the user's to fix."""

from __future__ import annotations

from pathlib import Path

from tossctr.printable import printable
from tossctr.redaction import redacted


class UserError(Exception):
    """Something the user can fix: bad input, a wrong config, a missing file.

    Its text is one line with file, column or key, row, the value found, and the remedy. The command
    line prints that line and exits with code 2; any other exception is an internal error.

    Args:
        problem: what is wrong, in the user's words; no trailing full stop.
        file: the file with the problem.
        column: its column.
        key: a config key, option or variable.
        row: 0-based row of the file.
        value: the offending value (shown with ``repr``, cut to 60 characters).
        remedy: what to do about it; no trailing full stop.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        column: str | None = None,
        key: str | None = None,
        row: int | None = None,
        value: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.column = column
        self.key = key
        self.row = row
        self.value = value
        self.remedy = remedy
        super().__init__(self.line())

    def line(self) -> str:
        """The whole message on one line: ``where: problem (found value); remedy``; secrets of URLs
        are left out."""
        where = [part for part in (self.file, self.key) if part]
        if self.column is not None:
            where.append(f"column {self.column}")
        if self.row is not None:
            where.append(f"row {self.row}")
        text = f"{', '.join(where)}: {self.problem}" if where else self.problem
        if self.value is not None:
            shown = repr(self.value)
            text += f" (found {shown if len(shown) <= 60 else shown[:57] + '...'})"
        if self.remedy:
            text += f"; {self.remedy}"
        return printable(redacted(" ".join(text.split())))


class Untrainable(UserError):
    """Training fails with these hyperparameters but may succeed with others: a loss that is not
    finite, a model too large for memory. A search continues with its next trial."""
