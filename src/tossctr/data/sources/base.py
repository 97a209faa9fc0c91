"""`Source`: the interface of a raw file that is read as a stream of Arrow record batches."""

from __future__ import annotations

import difflib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from tossctr.data.sources.bounded import bounded
from tossctr.data.where import RowsIn, Where
from tossctr.errors import UserError
from tossctr.location import Location

BATCH_ROWS = 4096  # about 10 MB with sequences of 2 KB per row
VOCABULARY = "tossctr_vocabulary"  # H5 attribute, or Parquet metadata key


class Source(ABC):
    """A file, or several as one, that can be read repeatedly as a stream.

    A subclass sets the attributes and implements `num_rows` and `_read`.

    Attributes:
        path: of the file or folder.
        names: all columns of the file.
        columns: the columns to read by default.
        vocabulary: SHA-256 of the vocabulary if the values are indices; None if they are raw.
        has_types: False if all columns are text (CSV).
    """

    path: Location
    names: tuple[str, ...]
    columns: tuple[str, ...]
    vocabulary: str | None = None
    has_types: bool = True

    @property
    def file(self) -> RowsIn:
        """The file or files, for errors."""
        return self.path

    @property
    @abstractmethod
    def num_rows(self) -> int | None:
        """Number of rows; None if only reading the file tells."""

    def count_rows(self) -> int:
        """Number of rows, by reading the file if necessary."""
        if self.num_rows is None:
            return sum(batch.num_rows for batch in self.batches(self.names[:1]))
        return self.num_rows

    @property
    def ends(self) -> tuple[int, ...] | None:
        """End rows of the ranges that can be read independently (Parquet row groups); None if the
        file must be read from its start."""
        return None

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Read rows `start` to `stop` in file order, at most `batch_rows` at a time.

        Args:
            columns: to read; None: `self.columns`.
            start, stop: the rows; a `stop` of None is the end.
            batch_rows: most rows per batch; batches are also bounded in bytes.

        Raises:
            UserError: a column is missing, or the file is damaged.
        """
        columns = self.columns if columns is None else columns
        require_columns(self, columns)
        end = min(rows for rows in (stop, self.num_rows, sys.maxsize) if rows is not None)
        if start < end:
            yield from self._read(columns, start, end, batch_rows)

    @abstractmethod
    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """See `batches`. The columns exist, and `start` < `stop`; without `num_rows`, `stop` may be
        beyond the end of the file."""


def require_columns(source: Source, columns: Iterable[str]) -> None:
    """Check that the file has each of these columns exactly once.

    Raises:
        UserError: names the first missing columns and the most similar name in the file.
    """
    wanted = list(dict.fromkeys(columns))
    missing = [name for name in wanted if name not in source.names]
    if len(missing) > 3:
        raise UserError(
            f"{len(missing)} columns are missing: {', '.join(missing[:3])}, ...",
            file=source.path,
            remedy="use a data set without them, or a file with them",
        )
    if missing:
        near = difflib.get_close_matches(missing[0], source.names, n=1)
        raise UserError(
            f"no column {', '.join(repr(name) for name in missing)}",
            file=source.path,
            remedy=f"did you mean {near[0]!r}?" if near else f"it has {_first(source.names)}",
        )
    for name in wanted:
        if source.names.count(name) > 1:
            raise UserError("the column occurs twice", file=source.path, column=name)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def unreadable(path: Location, error: Exception, row: int | None = None) -> UserError:
    """The error for a file that Arrow cannot read."""
    if isinstance(error, TimeoutError):
        return UserError(
            "the server stopped answering",
            file=path,
            remedy="check the network, then give the same command again",
        )
    return UserError(f"cannot be read: {short(error)}", file=path, row=row, remedy="write it again")


def short(error: object) -> str:
    """The first line of Arrow's message."""
    return str(error).split("\n")[0][:200].rstrip(". ")


def between(
    stream: Iterable[pa.RecordBatch],
    start: int,
    stop: int,
    columns: Sequence[str],
    batch_rows: int,
    path: Location,
    first_row: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Rows `start` to `stop` of a stream, in batches of at most `batch_rows` rows and about 16 MB.

    Args:
        path, first_row: the file, and the row number at which the stream begins, for errors.

    Raises:
        UserError: a row is too large.
    """
    position = 0
    for batch in stream:
        low = max(start - position, 0)
        high = min(batch.num_rows, stop - position)
        if low < high:
            chosen = batch.slice(low, high - low).select(list(columns))
            where = Where(first_row + position + low, path)
            yield from bounded(chosen, batch_rows, where)
        position += batch.num_rows
        if position >= stop:
            return
