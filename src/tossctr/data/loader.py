"""Batches from encoded rows: which rows stand together, and in what order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from tossctr.data.batch import Batch
from tossctr.data.rows import Array, EncodedRows


class BatchRows(Sampler[Array]):
    """Row numbers, a batch at a time: every row once an epoch, the last batch may be short.

    Batches are random samples of the whole set, as plain SGD wants them; similar lengths are
    brought together *inside* a batch (`RowsDataset`), so the order of training is not biased by
    length. The permutation costs 8 bytes a row and depends on seed and epoch alone.
    """

    def __init__(self, rows: int, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Array]:
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        for start in range(0, self.rows, self.batch_size):
            stop = min(start + self.batch_size, self.rows)
            yield order[start:stop] if self.shuffle else np.arange(start, stop)


class RowsDataset(Dataset[Batch]):
    """`dataset[row numbers]` is a `Batch` of those rows, shortest history first.

    Sorting brings similar lengths together, so that attention pads little within its groups;
    `Batch.row` says where each row came from.
    """

    def __init__(self, rows: EncodedRows) -> None:
        self.rows = rows

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
        return self.rows.take(numbers)


def batches(
    rows: EncodedRows,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A loader of `Batch`es of `batch_size` rows; see `BatchRows` for the order."""
    return DataLoader(
        RowsDataset(rows),
        sampler=BatchRows(len(rows), batch_size, shuffle=shuffle, seed=seed),
        batch_size=None,  # the dataset makes whole batches: no Python per row
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
    )
