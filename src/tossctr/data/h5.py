"""H5 files as streams of Arrow batches: one dataset a column, as FuxiCTR lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.data.sources import BATCH_ROWS, VOCABULARY, require_columns
from tossctr.errors import UserError


@contextmanager
def open_h5(path: Path, mode: str, file: Path | None = None) -> Iterator[Any]:
    """An `h5py.File`; `file` is what errors name, where `path` is temporary.

    Raises:
        UserError: h5py is not installed, or the file cannot be opened, read or written.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "H5 files need h5py, which is not installed",
            file=file or path,
            remedy="pip install 'tossctr[h5]'",
        ) from error
    try:
        with h5py.File(path, mode) as opened:
            yield opened
    except OSError as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"not a usable H5 file: {problem}", file=file or path, remedy="make it again"
        ) from error


class H5Source:
    """An H5 file: a one-dimensional dataset is a column, a two-dimensional one holds sequences,
    padded to one length (they come as lists, padding included)."""

    has_types = True
    ends = None

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = self.file = path
        with open_h5(path, "r") as file:
            shapes = {name: getattr(item, "shape", None) for name, item in file.items()}
            vocabulary = file.attrs.get(VOCABULARY)
        self.names: tuple[str, ...] = tuple(shapes)
        self.vocabulary = None if vocabulary is None else str(vocabulary)
        rows = None
        for name, shape in shapes.items():
            if not shape or len(shape) > 2:
                raise UserError(
                    "not a column: neither (rows,) nor (rows, length)",
                    file=path,
                    column=name,
                    value=shape,
                    remedy="give a file with one dataset a column, as FuxiCTR 2 writes them",
                )
            if rows is not None and shape[0] != rows:
                raise UserError(
                    f"{shape[0]:,} rows, where the columns before have {rows:,}",
                    file=path,
                    column=name,
                    remedy="make it again",
                )
            rows = shape[0]
        self._rows = int(rows or 0)
        self._columns = tuple(columns) or self.names

    @property
    def num_rows(self) -> int:
        return self._rows

    def count_rows(self) -> int:
        return self._rows

    def batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        columns = self._columns if columns is None else columns
        require_columns(self, columns)
        stop = self._rows if stop is None else min(stop, self._rows)
        if start >= stop:
            return
        with open_h5(self.path, "r") as file:
            for at in range(start, stop, batch_rows):
                end = min(at + batch_rows, stop)
                arrays = [_arrow(file[name][at:end]) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
    if values.dtype.kind in "OS":  # text, which h5py gives as bytes
        return pa.array(values.tolist(), pa.binary()).cast(pa.string())
    return pa.array(values)
