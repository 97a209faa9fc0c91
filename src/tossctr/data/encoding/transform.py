"""Encode one batch of raw columns with a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.data.encoding.decode import flat_numbers, meta
from tossctr.data.encoding.fields import FieldEncoding
from tossctr.data.encoding.ids import categories
from tossctr.data.encoding.lists import as_text, is_list
from tossctr.data.encoding.numbers import as_floats, refuse_infinite, scale_into, signed_log
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.encoding.state import EncoderState
from tossctr.data.encoding.tokens import IntTokens, joined_integers, split_tokens
from tossctr.data.encoding.vocabulary import Vocabulary, smallest_unsigned
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.data.where import Where
from tossctr.metrics.grouped import NO_GROUP

Array = NDArray[Any]


@dataclass(frozen=True)
class Transform:
    """A batch of raw rows, and the encoder's state."""

    state: EncoderState
    na: frozenset[str]
    vocabularies: dict[str, Vocabulary]
    features: FeatureMap
    batch: pa.RecordBatch
    where: Where
    report: EncodingReport

    def rows(self, label: NDArray[np.float32] | None) -> EncodedRows:
        n = self.batch.num_rows
        categorical = self._of("categorical")
        sizes = [self.vocabularies[c.owner].size for c in categorical]
        ids = np.empty((n, len(categorical)), smallest_unsigned(max(sizes, default=0)))
        for j, column in enumerate(categorical):
            with self.where.reading(column.name):
                ids[:, j] = self._categories(column)
        numeric = np.empty((n, len(self._of("numeric"))), np.float32)
        for j, column in enumerate(self._of("numeric")):
            self._numbers(column, numeric[:, j])
        times = np.empty((n, len(self._of("time"))), np.float64)
        for j, column in enumerate(self._of("time")):
            self._numbers(column, times[:, j])
        grouped = [*self._of("meta"), *(c for c in categorical if c.grouped)]
        groups = np.empty((n, len(grouped)), np.int64)
        for j, column in enumerate(grouped):
            with self.where.reading(column.name):
                groups[:, j] = self._groups(column)
        sequences = {
            c.name: self._ids(c) if c.type == "sequence" else self._number_lists(c, np.float32)
            for c in self.state.columns
            if c.type in ("sequence", "numeric_sequence")
        }
        return EncodedRows(
            features=self.features,
            categorical=ids,
            numeric=numeric,
            sequences=sequences,
            times=times,
            time_sequences={
                c.name: self._number_lists(c, np.float64) for c in self._of("time_sequence")
            },
            meta=groups,
            label=label,
        )

    def _of(self, field_type: str) -> list[FieldEncoding]:
        return [c for c in self.state.columns if c.type == field_type]

    def _array(self, column: FieldEncoding) -> pa.Array:
        try:
            return self.batch.column(column.name)
        except KeyError:
            raise self.where.error(
                "no such column", column.name, None, None, "give a file that has it"
            ) from None

    def _categories(self, column: FieldEncoding) -> Array:
        vocabulary = self.vocabularies[column.owner]
        array = self._array(column)
        codes, texts = categories(array, column.dtype, self.na, column.name, self.where)
        fill = column.fill
        missing = vocabulary.look_up(fill) if isinstance(fill, str) else vocabulary.oov
        indices = vocabulary.look_up_texts(codes, texts, missing)
        given = codes >= 0
        self.report.count(
            column.name,
            values=int(given.sum()),
            unseen=int(((indices == vocabulary.oov) & given).sum()),
            missing=int((~given).sum()),
        )
        return indices

    def _groups(self, column: FieldEncoding) -> Array:
        found = meta(self._array(column), column, self.na, self.where)
        if column.type == "categorical" and not column.remap:
            # The last index means any unknown value.
            found[found == self.vocabularies[column.owner].oov] = NO_GROUP
        return found

    def _ids(self, column: FieldEncoding) -> RaggedArray:
        with self.where.reading(column.name):
            return self._indices(column)

    def _indices(self, column: FieldEncoding) -> RaggedArray:
        vocabulary = self.vocabularies[column.owner]
        array = self._array(column)
        if not is_list(array):
            array = as_text(array, column.name, self.where)
        joined = joined_integers(array, column.splitter, self.na)
        if joined is not None and vocabulary.table is not None:
            found = joined.look_up(vocabulary.table, vocabulary.oov)
            if found is not None:
                indices, offsets, unseen = found
                self.report.count(column.name, values=len(indices), unseen=unseen)
                return RaggedArray(indices, offsets)
        tokens = split_tokens(
            array, column.splitter, column.id_dtype, self.na, column.name, self.where,
            keep_nulls=column.keep_nulls,
        )  # fmt: skip
        if isinstance(tokens, IntTokens):
            indices = vocabulary.look_up_integers(tokens.values)
            kept = 0
        else:
            indices = vocabulary.look_up_texts(tokens.codes, tokens.texts, vocabulary.oov)
            kept = int((tokens.codes < 0).sum())
        self.report.count(
            column.name,
            values=len(indices) - kept,
            unseen=int((indices == vocabulary.oov).sum()) - kept,
            null_events=tokens.nulls,
        )
        return RaggedArray(indices, tokens.offsets)

    def _numbers(self, column: FieldEncoding, out: Array) -> None:
        with self.where.reading(column.name):
            values = as_floats(self._array(column), column.name, self.where, self.na)
        self._scale(column, values, out, self.where)

    def _number_lists(self, column: FieldEncoding, dtype: type[np.floating[Any]]) -> RaggedArray:
        with self.where.reading(column.name):
            values, offsets = flat_numbers(self._array(column), column, self.na, self.where)
        out = np.empty(len(values), dtype)
        self._scale(column, values, out, self.where.of_values(offsets))
        return RaggedArray(out, offsets)

    def _scale(self, column: FieldEncoding, values: Array, out: Array, where: Where) -> None:
        shift, scale = self.state.shift_and_scale(column)
        missing = np.nan if column.keeps_missing else self.state.encoded_fill(column)
        if column.normalizer == "quantile":
            refuse_infinite(values, column.name, where)
            values = self.state.quantiles[column.owner](values)
        elif column.normalizer == "signed_log":
            values = signed_log(values)
        count = scale_into(out, values, missing, shift, scale, column.name, where)
        self.report.count(column.name, missing=count)
