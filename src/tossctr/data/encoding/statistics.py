"""What fitting an encoder needs to know of the rows.

Mergeable, so that batches, threads and machines can each count their own part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoding.columns import Column, resolve
from tossctr.data.encoding.decode import flat_numbers, labels
from tossctr.data.encoding.numbers import NumberStats, as_floats
from tossctr.data.encoding.texts import as_text, categories
from tossctr.data.encoding.tokens import IntTokens, JoinedIntegers, is_list, split_tokens
from tossctr.data.encoding.vocabulary import COUNTED_IN_ARRAY, TokenCounts
from tossctr.data.where import Where


@dataclass
class Stats:
    """Statistics of the training rows.

    Attributes:
        columns: what is counted, from the data set's features.
        label: the label column.
        tokens: by vocabulary owner; columns that share a vocabulary are counted together.
        numbers: by scaler owner; columns that share a scaler are counted together.
        label_counts: rows of label 0 and of label 1.
    """

    columns: tuple[Column, ...]
    label: str
    tokens: dict[str, TokenCounts] = field(default_factory=dict)
    numbers: dict[str, NumberStats] = field(default_factory=dict)
    label_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))

    @classmethod
    def of(cls, dataset: DatasetConfig) -> Stats:
        """No rows yet.

        Raises:
            UserError: the features' options contradict each other.
        """
        return cls.of_columns(resolve(dataset), dataset.label_col.name)

    @classmethod
    def of_columns(cls, columns: tuple[Column, ...], label: str) -> Stats:
        stats = cls(columns, label)
        for column in columns:
            if column.has_vocabulary:
                stats.tokens.setdefault(column.owner, TokenCounts())
            elif column.kind in ("numeric", "numeric_sequence"):
                stats.numbers.setdefault(
                    column.owner, NumberStats(column.normalizer == "StandardScaler")
                )
        return stats

    @property
    def rows(self) -> int:
        return int(self.label_counts.sum())

    def update(
        self,
        batch: pa.RecordBatch,
        *,
        first_row: int = 0,
        file: Path | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Count a batch of raw rows.

        Args:
            batch: all feature columns and the label.
            first_row: row of the file that the batch begins with, for errors.
            file: the file, for errors.
            rows: (B,) rows of the file, where the batch's are not consecutive.

        Raises:
            UserError: a value that cannot be encoded, by column, row and value.
        """
        where = Where(first_row, file, rows)
        clicked = labels(batch, self.label, where)
        self.label_counts += np.bincount(clicked.astype(np.int64), minlength=2)
        for column in self.columns:
            with where.reading(column.name):
                self._count(column, batch.column(column.name), where)

    def merge(self, other: Stats) -> None:
        """Add what other rows gave; the order of merging makes no difference."""
        self.label_counts += other.label_counts
        for name, tokens in other.tokens.items():
            self.tokens[name].merge(tokens)
        for name, numbers in other.numbers.items():
            self.numbers[name].merge(numbers)

    def _count(self, column: Column, array: pa.Array, where: Where) -> None:
        match column.kind:
            case "categorical":
                self._count_categories(column, array, where)
            case "sequence":
                self._count_tokens(column, array, where)
            case "numeric":
                values = as_floats(array, column.name, where)
                self.numbers[column.owner].update(values, column.fill_number, column.name, where)
            case "numeric_sequence":
                values, offsets = flat_numbers(array, column, where)
                self.numbers[column.owner].update(
                    values, column.fill_number, column.name, where.of_values(offsets)
                )

    def _count_categories(self, column: Column, array: pa.Array, where: Where) -> None:
        codes, texts = categories(array, column.dtype, column.name, where)
        if not column.remap:
            _check_indices(column, np.array([int(text or 0) for text in texts])[codes], where)
        counts = self.tokens[column.owner]
        counts.add_texts(codes, texts)
        missing = int((codes < 0).sum())
        if missing and isinstance(column.fill, str):
            counts.add(column.fill, missing)

    def _count_tokens(self, column: Column, array: pa.Array, where: Where) -> None:
        counts = self.tokens[column.owner]
        if not is_list(array):
            array = as_text(array, column.name, where)
        joined = JoinedIntegers.of(array, column.splitter)
        table = None if joined is None else joined.count(COUNTED_IN_ARRAY)
        if table is not None:
            counts.add_table(table)
            return
        tokens = split_tokens(array, column.splitter, column.id_dtype, column.name, where)
        if isinstance(tokens, IntTokens):
            if not column.remap:
                _check_indices(column, tokens.values, where.of_values(tokens.offsets))
            counts.add_integers(tokens.values)
        else:
            counts.add_texts(tokens.codes, tokens.texts)


def _check_indices(column: Column, values: NDArray[np.int64], where: Where) -> None:
    if len(values) and values.min() < 0:
        at = int((values < 0).argmax())
        raise where.error(
            "remap: false, but not an index",
            column.name,
            at,
            int(values[at]),
            "indices count from 0",
        )
