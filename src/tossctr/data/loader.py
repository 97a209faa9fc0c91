"""Batches of encoded rows: sampling, order, and loader processes."""

from __future__ import annotations

import errno
import math
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tossctr.data.batch import Batch
from tossctr.data.rows import Array, EncodedRows
from tossctr.errors import UserError

# Torch raises plain RuntimeErrors for its worker processes and its pinning thread.
_LOST = re.compile(r"DataLoader worker \(pid|Pin memory thread exited")


class BatchRows(Sampler[Array]):
    """Batches of row numbers: each row once per epoch; the last batch may be smaller.

    Batches are random samples of all rows. Rows are sorted by length only *inside* a batch
    (`RowsDataset`), so that training is not biased by length. The permutation takes 8 bytes per row
    and depends only on seed and epoch.

    Args:
        rows: number of rows.
        batch_size: rows per batch.
        shuffle: use a new order in each epoch.
        seed: of order and sampling.
        label: (rows,) 0 or 1; required if `negative_sampling` < 1.
        negative_sampling: each epoch uses all rows with label 1 and a new sample of this share of
            the others.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        label: Array | None = None,
        negative_sampling: float = 1.0,
    ) -> None:
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self._resumed = (0, 0)
        self._positive: Array | None = None
        self._count = rows
        self._rows = rows
        if negative_sampling < 1:
            if label is None:
                raise ValueError("sampling by label needs labels")
            self._positive = np.flatnonzero(np.asarray(label) > 0.5)
            negatives = rows - len(self._positive)
            self._count = len(self._positive) + round(negatives * negative_sampling)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Start in this epoch after that many batches; `len` still counts all."""
        self.epoch = epoch
        self._resumed = (epoch, batches)

    @property
    def rows_per_epoch(self) -> int:
        return self._count

    def rows_of(self, batch: int) -> int:
        """The number of rows of a batch."""
        return min(self.batch_size, self._count - batch * self.batch_size)

    def __len__(self) -> int:
        return math.ceil(self._count / self.batch_size)

    def __iter__(self) -> Iterator[Array]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._sample(rng)
        if self.shuffle:
            rng.shuffle(order)
        epoch, done = self._resumed
        first = done * self.batch_size if self.epoch == epoch else 0
        for start in range(first, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _sample(self, rng: np.random.Generator) -> Array:
        """The epoch's rows in ascending order."""
        if self._positive is None:
            return np.arange(self._rows)
        is_positive = np.zeros(self._rows, bool)
        is_positive[self._positive] = True
        negative = np.flatnonzero(~is_positive)
        drawn = rng.choice(negative, self._count - len(self._positive), replace=False)
        return np.sort(np.concatenate([self._positive, drawn]))


class RowsDataset(Dataset[Batch]):
    """`dataset[row numbers]` is a `Batch` of those rows, sorted by history length.

    Sorting keeps padding small in attention's groups of rows; `Batch.row` has the row numbers.

    Args:
        rows: all rows.
        share: (r, n): this is process r of n that share each batch. It takes every n-th row after
            sorting, so that shares have similar sizes and lengths. A share of a small batch may be
            empty.
    """

    def __init__(self, rows: EncodedRows, share: tuple[int, int] = (0, 1)) -> None:
        self.rows = rows
        self.share = share

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Array) -> Batch:
        if self.rows.sequences:
            lengths = np.zeros(len(numbers), np.int64)
            for name, ragged in self.rows.sequences.items():
                own = ragged.offsets[numbers + 1] - ragged.offsets[numbers]
                limit = self.rows.features[name].max_len
                lengths = np.maximum(lengths, own if limit is None else np.minimum(own, limit))
            numbers = numbers[np.argsort(lengths, kind="stable")]
        own, processes = self.share
        return self.rows.take(numbers[own::processes])


def batches(
    rows: EncodedRows,
    order: BatchRows,
    *,
    share: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A loader of the batches of `order`, or of a `share` of each (see `RowsDataset`), prefetched
    by `num_workers` processes."""
    return DataLoader(
        RowsDataset(rows, share),
        sampler=order,
        batch_size=None,  # the dataset returns batches: no Python loop over rows
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Forks share the mapped store; the default of Python 3.14 would copy it to each process.
        multiprocessing_context="fork" if num_workers > 0 else None,
        worker_init_fn=_leave_signals_to_main,
        generator=torch.Generator(),  # otherwise each pass would use the global generator
    )


def _known(error: RuntimeError | OSError) -> UserError | None:
    """The `UserError` for a failed loader process; None for any other error."""
    said = str(error)
    few_files = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
    if few_files or "Too many open files" in said:
        return UserError(
            "the processes that load batches need more open files than are allowed",
            remedy="raise the limit (ulimit -n 4096), or give --set num_workers=0; the same "
            "command resumes from the last checkpoint",
        )
    if isinstance(error, RuntimeError) and _LOST.match(said):
        return UserError(
            f"a process that loads batches was killed: {said.splitlines()[0]}",
            remedy="see whether memory ran out; --set num_workers=0 needs less, and the same "
            "command resumes from the last checkpoint",
        )
    return None


def _leave_signals_to_main(worker: int) -> None:
    """Ignore signals to the process group in a worker: the main process still needs it up to the
    next checkpoint, and ends it afterwards."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def ending_workers(*loaders: DataLoader[Batch]) -> Iterator[None]:
    """End loader processes on exit. An error that a notebook keeps would keep them alive, and
    Python waits at its exit for processes that ignore signals.

    Raises:
        UserError: a loader's process was killed, or this process may open no more files.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        known = _known(error)
        if known is None:
            raise
        raise known from error
    finally:
        for loader in loaders:
            workers = loader._iterator  # persistent ones are there; torch has no public way to them
            if isinstance(workers, _MultiProcessingDataLoaderIter):
                workers._shutdown_workers()
