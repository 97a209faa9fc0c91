"""Statistics that fit an encoder, mergeable over batches, threads and machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoding.decode import flat_numbers, labels
from tossctr.data.encoding.fields import FieldEncoding, field_encodings
from tossctr.data.encoding.ids import categories
from tossctr.data.encoding.lists import as_text, is_list
from tossctr.data.encoding.numbers import NumberStats, as_floats, signed_log
from tossctr.data.encoding.quantiles import QuantileSample, row_hashes
from tossctr.data.encoding.redundancy import ColumnHash, number_bits, text_bits
from tossctr.data.encoding.tokens import IntTokens, joined_integers, split_tokens
from tossctr.data.encoding.vocabulary import COUNTED_IN_ARRAY, TokenCounts
from tossctr.data.where import RowsIn, Where
from tossctr.errors import UserError

_STANDARDISED = ("StandardScaler", "signed_log")


@dataclass
class Stats:
    """Statistics of training rows.

    Attributes:
        columns: the columns to count.
        label: the label column.
        na: texts that mean a missing value.
        tokens: counts, by column with a vocabulary.
        longest: length of the longest sequence, by column of joined text.
        numbers: by owner of a scaler.
        samples: by owner of quantiles.
        hashes: by column, if `drop_redundant`.
        label_counts: numbers of rows with label 0 and 1.
    """

    columns: tuple[FieldEncoding, ...]
    label: str
    na: frozenset[str]
    tokens: dict[str, TokenCounts] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, NumberStats] = field(default_factory=dict)
    samples: dict[str, QuantileSample] = field(default_factory=dict)
    hashes: dict[str, ColumnHash] = field(default_factory=dict)
    label_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))

    @classmethod
    def of(cls, dataset: DatasetConfig) -> Stats:
        """Statistics of no rows.

        Raises:
            UserError: the features' options contradict each other.
        """
        stats = cls(field_encodings(dataset), dataset.label_col.name, frozenset(dataset.na_values))
        if dataset.drop_redundant:
            owners = {c.owner for c in stats.columns if c.owner != c.name}
            for column in stats.columns:
                shares = column.name in owners or column.owner != column.name
                if column.type in ("categorical", "numeric") and not shares:
                    stats.hashes[column.name] = ColumnHash()
        return stats.like()

    def like(self) -> Stats:
        """Statistics of no rows with the same columns."""
        stats = Stats(self.columns, self.label, self.na)
        stats.hashes = {name: ColumnHash() for name in self.hashes}
        for column in self.columns:
            if column.normalizer == "quantile":
                stats.samples.setdefault(column.owner, QuantileSample())
            if column.has_vocabulary:
                stats.tokens[column.name] = TokenCounts()
            elif column.type in ("numeric", "numeric_sequence"):
                stats.numbers.setdefault(
                    column.owner, NumberStats(column.normalizer in _STANDARDISED)
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
        file: RowsIn | None = None,
        rows: NDArray[np.int64] | None = None,
        label: NDArray[np.float32] | None = None,
    ) -> None:
        """Add a batch of raw rows.

        Args:
            batch: all feature columns and the label.
            first_row: row number of the first row in the file, for errors.
            file: the file or files, for errors.
            rows: (B,) row numbers in the file, if they are not consecutive.
            label: (B,) 0 or 1; None decodes the label column.

        Raises:
            UserError: a value cannot be encoded.
        """
        where = Where(first_row, file, rows)
        label = labels(batch, self.label, where) if label is None else label
        self.label_counts += np.bincount(label.astype(np.int64), minlength=2)
        if rows is None:
            rows = first_row + np.arange(batch.num_rows)
        hashes = row_hashes(rows)
        for column in self.columns:
            with where.reading(column.name):
                self._count(column, batch.column(column.name), where, hashes)

    def merge(self, other: Stats) -> None:
        """Add the statistics of other rows; the order does not matter."""
        self.label_counts += other.label_counts
        for name, tokens in other.tokens.items():
            self.tokens[name].merge(tokens)
        for name, longest in other.longest.items():
            self.longest[name] = max(self.longest.get(name, 0), longest)
        for name, numbers in other.numbers.items():
            self.numbers[name].merge(numbers)
        for name, sample in other.samples.items():
            self.samples[name].merge(sample)
        for name, hashes in other.hashes.items():
            self.hashes[name].merge(hashes)

    def _count(
        self,
        column: FieldEncoding,
        array: pa.Array,
        where: Where,
        row_hashes: NDArray[np.uint64],
    ) -> None:
        match column.type:
            case "categorical":
                codes, texts = self._count_categories(column, array, where)
                if column.name in self.hashes:
                    fill = column.fill if isinstance(column.fill, str) else None
                    self.hashes[column.name].update(text_bits(codes, texts, fill), row_hashes)
            case "sequence":
                self._count_tokens(column, array, where)
            case "numeric":
                values = as_floats(array, column.name, where, self.na)
                self._count_numbers(column, values, where)
                if column.normalizer == "quantile":
                    self.samples[column.owner].update(values, column.fill_number, row_hashes)
                if column.name in self.hashes:
                    fill_number = np.nan if column.keeps_missing else column.fill_number
                    bits = number_bits(values, fill_number)
                    self.hashes[column.name].update(bits, row_hashes)
            case "numeric_sequence":
                values, offsets = flat_numbers(array, column, self.na, where)
                self._count_numbers(column, values, where.of_values(offsets))

    def _count_numbers(self, column: FieldEncoding, values: NDArray[Any], where: Where) -> None:
        fill = column.fill_number
        if column.normalizer == "signed_log":
            values, fill = signed_log(values), float(signed_log(np.array(fill)))
        self.numbers[column.owner].update(values, fill, column.name, where)

    def _count_categories(
        self, column: FieldEncoding, array: pa.Array, where: Where
    ) -> tuple[NDArray[np.int32], list[str]]:
        codes, texts = categories(array, column.dtype, self.na, column.name, where)
        if not column.remap:
            _check_indices(column, codes, texts, where)
        counts = self.tokens[column.name]
        counts.add_texts(codes, texts)
        missing = int((codes < 0).sum())
        if missing and isinstance(column.fill, str):
            counts.add(column.fill, missing)
        return codes, texts

    def _count_tokens(self, column: FieldEncoding, array: pa.Array, where: Where) -> None:
        counts = self.tokens[column.name]
        text = not is_list(array)
        if text:
            array = as_text(array, column.name, where)
        joined = joined_integers(array, column.splitter, self.na)
        counted = None if joined is None else joined.count(COUNTED_IN_ARRAY)
        if counted is not None:
            table, longest = counted
            counts.add_table(table)
            self._lengthen(column, longest)
            return
        tokens = split_tokens(
            array, column.splitter, column.id_dtype, self.na, column.name, where,
            keep_nulls=column.keep_nulls,
        )  # fmt: skip
        if text:
            self._lengthen(column, int(np.diff(tokens.offsets).max(initial=0)))
        if isinstance(tokens, IntTokens):
            if not column.remap and len(tokens.values) and tokens.values.min() < 0:
                at = int((tokens.values < 0).argmax())
                raise _no_index(column, at, tokens.values[at], where.of_values(tokens.offsets))
            counts.add_integers(tokens.values)
        else:
            if not column.remap:
                _check_indices(column, tokens.codes, tokens.texts, where.of_values(tokens.offsets))
            counts.add_texts(tokens.codes, tokens.texts)

    def _lengthen(self, column: FieldEncoding, events: int) -> None:
        self.longest[column.name] = max(self.longest.get(column.name, 0), events)


def _check_indices(
    column: FieldEncoding, codes: NDArray[np.int32], texts: list[str], where: Where
) -> None:
    negative = np.array([text.startswith("-") for text in texts] + [False])[codes]
    if negative.any():
        at = int(negative.argmax())
        raise _no_index(column, at, texts[codes[at]], where)


def _no_index(column: FieldEncoding, at: int, value: object, where: Where) -> UserError:
    return where.error(
        "remap: false, but not an index", column.name, at, int(str(value)), "indices count from 0"
    )
