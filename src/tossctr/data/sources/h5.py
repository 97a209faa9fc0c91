"""H5 files as streams of Arrow batches, with one dataset per column as FuxiCTR writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.schema import Dtype
from tossctr.data.sources.base import VOCABULARY, Source
from tossctr.data.sources.bounded import BATCH_BYTES, MAX_ROW_BYTES, bounded
from tossctr.data.where import Where
from tossctr.errors import UserError

_BOMB_BYTES, _BOMB_RATIO = 512 << 20, 2000  # gzip packs at most a thousand to one


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open an `h5py.File` for reading.

    Raises:
        UserError: h5py is not installed, or the enclosed code cannot read the file.
    """
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as opened:
            yield opened
    # h5py raises HDF5's errors as these types.
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError) as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"not a usable H5 file: {problem}", file=path, remedy="make it again"
        ) from error


@contextmanager
def writing(path: Path, file: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Create an `h5py.File` at the temporary `path`, and a function that raises earlier write
    errors; `file` is the final path, for errors.

    Raises:
        UserError: h5py is not installed.
        OSError: a write failed.
    """
    h5py = _h5py(file)
    with _Output(path, "w+b") as output:
        try:
            with h5py.File(output, "w") as opened:
                yield opened, output.check
        finally:
            output.check()


class _Output(FileIO):
    """A file that hides write errors from HDF5, which crashes the process if closing a file fails.
    Nothing is written after the first error, and `check` raises it."""

    _refused: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._refused is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._refused = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self._refused is None else size or 0
        except OSError as error:
            self._refused = error
            return size or 0

    def check(self) -> None:
        """Raise the first write error, if any."""
        if self._refused is not None:
            raise self._refused


def _h5py(file: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "H5 files need h5py, which is not installed",
            file=file,
            remedy="pip install 'tossctr[h5]'",
        ) from error
    return h5py


class H5Source(Source):
    """An H5 file. A one-dimensional dataset is a column; a two-dimensional one holds padded
    sequences, which are read as lists with their padding."""

    def __init__(
        self, path: Path, types: Mapping[str, Dtype], na_values: Sequence[str] = ()
    ) -> None:
        self.path: Path = path
        shapes: dict[str, tuple[int, ...]] = {}
        self._row_bytes: dict[str, int] = {}
        with reading(path) as file:
            vocabulary = file.attrs.get(VOCABULARY)
            for name in file:
                dataset = _column(file, name, path)
                shapes[name] = dataset.shape
                self._row_bytes[name] = int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize
        self.names = tuple(shapes)
        self.vocabulary = None if vocabulary is None else str(vocabulary)
        rows = None
        for name, shape in shapes.items():
            if rows is not None and shape[0] != rows:
                raise UserError(
                    f"{shape[0]:,} rows, where the columns before have {rows:,}",
                    file=path,
                    column=name,
                    remedy="make it again",
                )
            rows = shape[0]
        self._rows = int(rows or 0)
        self.columns = tuple(types) or self.names

    @property
    def num_rows(self) -> int:
        return self._rows

    def _read(
        self, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        row_bytes = sum(self._row_bytes[name] for name in columns)
        at_once = max(1, min(batch_rows, BATCH_BYTES // max(row_bytes, 1)))
        with reading(self.path) as file:
            datasets = [_column(file, name, self.path) for name in columns]
            for at in range(start, stop, at_once):
                end = min(at + at_once, stop)
                arrays = [_arrow(dataset[at:end]) for dataset in datasets]
                batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
                yield from bounded(batch, batch_rows, Where(at, self.path))


def _column(file: Any, name: str, path: Path) -> Any:
    """The dataset of a column.

    Raises:
        UserError: it is not a dataset of this file with numbers or text, or suspiciously large.
    """
    import h5py

    problem = None
    link = file.get(name, getlink=True)
    item = file[name] if isinstance(link, h5py.HardLink) else None
    if item is None:
        problem = "a link, which is not followed"
    elif not isinstance(item, h5py.Dataset):
        problem = "not a column: a group"
    elif item.external or item.is_virtual:
        problem = "stored in another file, which is not opened"
    elif not item.shape or len(item.shape) > 2:
        problem = f"not a column, neither (rows,) nor (rows, length): {item.shape}"
    elif item.dtype.kind not in "biufS" and h5py.check_string_dtype(item.dtype) is None:
        problem = f"of type {item.dtype}, neither numbers nor texts"
    else:
        row = int(np.prod(item.shape[1:], dtype=object)) * item.dtype.itemsize
        chunk = int(np.prod(item.chunks or (0,), dtype=object)) * item.dtype.itemsize
        size, stored = row * item.shape[0], item.id.get_storage_size()
        if max(row, chunk) > MAX_ROW_BYTES:
            problem = f"{max(row, chunk) / 1e6:,.0f} MB in a row or a chunk"
        elif size > _BOMB_BYTES and size > _BOMB_RATIO * stored:
            problem = f"{size / 1e6:,.0f} MB, of which the file holds {stored / 1e6:,.1f}"
    if problem is not None:
        raise UserError(
            problem,
            file=path,
            column=name,
            remedy="give a file with one dataset a column, as FuxiCTR 2 writes them",
        )
    return item


def _arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
    if values.dtype.kind in "OS":  # text, which h5py gives as bytes
        return pa.array(values.tolist(), pa.binary()).cast(pa.string())
    return pa.array(values)
