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

BATCH_ROWS = 4096  # with sequences of 2 KB a row a batch is about 10 MB
VOCABULARY = "tossctr_vocabulary"  # attribute of an H5 file, key of a Parquet file's metadata


class Source(ABC):
    """A file, or several as one, that can be read in order, any number of times.

    Attributes:
        path: where it is.
        names: every column of the file.
        columns: those that it was opened with.
        vocabulary: SHA-256 of the vocabulary whose indices it holds; None where its values are raw.
        has_types: whether its columns have types of their own, which CSV has not.
    """

    path: Location
    names: tuple[str, ...]
    columns: tuple[str, ...]
    vocabulary: str | None = None
    has_types: bool = True

    @property
    def file(self) -> RowsIn:
        """What errors name rows by."""
        return self.path

    @property
    @abstractmethod
    def num_rows(self) -> int | None:
        """Rows in the file where its metadata says so, else None."""

    @abstractmethod
    def count_rows(self) -> int:
        """Rows in the file, by reading it through where nothing else tells."""

    @property
    def ends(self) -> tuple[int, ...] | None:
        """Rows that parts of the file end before, each part readable without those before it (a
        Parquet row group); None where the file is read from its start."""
        return None

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Rows `start` to `stop` of some columns in file order, at most `batch_rows` at a time.

        `columns` of None are those that the source was opened with.

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
        """As `batches`, of columns that are there; `start` is before `stop`, which is within the
        file where `num_rows` is known, else perhaps beyond it."""


def require_columns(source: Source, columns: Iterable[str]) -> None:
    """Check that the file has each of these columns exactly once.

    Raises:
        UserError: one line that names the first missing columns, how many there are, and the
            nearest name that the file does have.
    """
    wanted = list(dict.fromkeys(columns))
    missing = [name for name in wanted if name not in source.names]
    if len(missing) > 3:
        raise UserError(
            f"{len(missing)} columns are missing: {', '.join(missing[:3])}, ...",
            file=source.path,
            remedy="use a data set that leaves them out, or a file that has them",
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
    """The error for a file that Arrow cannot read on."""
    if isinstance(error, TimeoutError):
        return UserError(
            "the server does not answer any more",
            file=path,
            remedy="check the network, then give the same command again",
        )
    return UserError(f"cannot be read: {short(error)}", file=path, row=row, remedy="write it again")


def short(error: object) -> str:
    """The first line of what Arrow says."""
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
    """Rows `start` to `stop` of a stream, in batches of at most `batch_rows` and some 16 MB.

    Args:
        path, first_row: the file, and its row that the stream begins with, for errors.

    Raises:
        UserError: a row that is larger than any history.
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
