"""Check that rows are in time order, as a time split assumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoder import Encoder
from tossctr.data.rows import EncodedRows
from tossctr.data.where import RowsIn, Where

Array = NDArray[Any]


@dataclass
class TimeOrder:
    """Checks one column of times, batch by batch in file order.

    Attributes:
        missing: the number that replaces a missing time; such rows are ignored.
        rows: number of rows so far.
        older: number of rows with an earlier time than some row before them.
        first: the first of these rows.
        latest: the latest time so far.
    """

    missing: float
    rows: int = 0
    older: int = 0
    first: int = 0
    latest: float = -np.inf

    def update(self, times: Array) -> None:
        """Check the next (B,) times."""
        known = times != self.missing
        latest = np.maximum.accumulate(np.append(self.latest, np.where(known, times, -np.inf)))
        older = known & (times < latest[:-1])
        if not self.older:
            self.first = self.rows + int(older.argmax())
        self.older += int(older.sum())
        self.rows += len(times)
        self.latest = float(latest[-1])


class TimeOrders:
    """Checks all columns of type `time`, if the data set has a time split."""

    def __init__(self, dataset: DatasetConfig, encoder: Encoder) -> None:
        by_time = dataset.valid_data is None and dataset.valid_split.method == "time"
        fills = {column.name: column.fill_number for column in encoder.state.columns}
        names = encoder.features.names("time") if by_time else ()
        self._columns = {name: TimeOrder(fills[name]) for name in names}

    def update(self, rows: EncodedRows) -> None:
        """Check the next rows of the file."""
        for index, column in enumerate(self._columns.values()):
            column.update(rows.times[:, index])

    def warning(self, file: RowsIn) -> str | None:
        """A line if no column is in order; None if one is, as rows may be sorted by that."""
        if not self._columns or not all(column.older for column in self._columns.values()):
            return None
        name, column = next(iter(self._columns.items()))
        error = Where(0, file).error(
            f"older than a row above it, as are {column.older:,} of {column.rows:,} rows: the time "
            "split does not validate on the newest rows",
            name,
            column.first,
            None,
            "sort the rows by time, or set valid_split: {method: random}",
        )
        return error.line()
