"""The encoder: raw columns to ids and scaled numbers, fit on training rows and then frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tossctr.artefact import ENCODER_BYTES, read_artefact
from tossctr.config.schema import DatasetConfig, Dtype
from tossctr.data.encoding.decode import labels
from tossctr.data.encoding.fields import FieldEncoding
from tossctr.data.encoding.redundancy import redundant
from tossctr.data.encoding.report import EncodingReport
from tossctr.data.encoding.state import EncoderState, Scaler
from tossctr.data.encoding.statistics import Stats
from tossctr.data.encoding.transform import Transform
from tossctr.data.encoding.vocabulary import TokenCounts, Vocabulary, frequent_tokens
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.data.where import RowsIn, Where
from tossctr.errors import UserError
from tossctr.files import write_json
from tossctr.progress import say

__all__ = ["Encoder", "EncodingReport"]

FILE = "encoder.json"


class Encoder:
    """Transforms raw rows by a frozen `EncoderState`.

    A vocabulary has PAD at index 0, then tokens by decreasing count (ties by text), and OOV last. A
    missing category is OOV and a missing number is NaN, which networks replace by `Field.missing`;
    `fill_na` replaces both. A missing sequence is empty.

    Attributes:
        state: the fit parameters.
        features: the encoded fields, in the data set's order.
    """

    def __init__(self, state: EncoderState) -> None:
        self.state = state
        self._na = frozenset(state.na_values)
        self._vocabularies = {
            name: Vocabulary(tokens) for name, tokens in state.vocabularies.items()
        } | {name: Vocabulary.of_indices(size) for name, size in state.index_sizes.items()}
        self.features = FeatureMap(
            dataset_id=state.dataset_id,
            label=state.label.name,
            fields=tuple(
                c.field(
                    self._vocabularies[c.owner].size if c.has_vocabulary else None,
                    state.missing(c),
                )
                for c in state.columns
            ),
        )

    @classmethod
    def fit(cls, dataset: DatasetConfig, batches: Iterable[pa.RecordBatch]) -> Encoder:
        """Fit on consecutive batches of training rows.

        Raises:
            UserError: a value that cannot be encoded, or options that contradict each other.
        """
        stats, row = Stats.of(dataset), 0
        for batch in batches:
            stats.update(batch, first_row=row)
            row += batch.num_rows
        return cls.from_stats(dataset, stats)

    @classmethod
    def from_stats(cls, dataset: DatasetConfig, stats: Stats) -> Encoder:
        """The encoder of merged statistics.

        Raises:
            UserError: an index of a `remap: false` column does not fit its `vocab_size`, or
                columns that share a vocabulary have no id in common.
        """
        specs = {spec.name: spec for spec in dataset.features}
        columns = _informative(stats)
        owners = {c.owner: c for c in columns}
        vocabularies, index_sizes, scalers, quantiles = {}, {}, {}, {}
        for name, totals in _totals(columns, stats, dataset).items():
            if owners[name].remap:
                least = specs[name].min_categr_count or dataset.min_categr_count
                vocabularies[name] = frequent_tokens(totals, least)
            else:
                index_sizes[name] = _index_size(name, owners[name].vocab_size, totals)
        for name, numbers in stats.numbers.items():
            if name not in owners:
                continue
            match owners[name].normalizer:
                case "MinMaxScaler":
                    shift, scale = numbers.min_max()
                case "quantile":
                    quantiles[name] = stats.samples[name].quantiles(numbers.low, numbers.high)
                    continue
                case "StandardScaler" | "signed_log":
                    shift, scale = numbers.standard()
                case None:
                    continue
            scalers[name] = Scaler(shift=shift, scale=scale)
        return cls(
            EncoderState(
                dataset_id=dataset.dataset_id,
                label=dataset.label_col,
                na_values=dataset.na_values,
                columns=columns,
                vocabularies=vocabularies,
                index_sizes=index_sizes,
                scalers=scalers,
                quantiles=quantiles,
            )
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the state's canonical JSON, without `grouped`, which does not affect ids."""
        content = self.state.model_dump(mode="json")
        for column in content["columns"]:
            del column["grouped"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def of_encoded(self) -> Encoder:
        """The encoder for files that hold the output of this one: indices, scaled numbers, group
        ids."""

        def encoded(column: FieldEncoding) -> FieldEncoding:
            kept = {"fill": None, "normalizer": None}
            if column.type == "meta":
                return column.model_copy(update={**kept, "dtype": "int"})
            if not column.has_vocabulary:
                return column.model_copy(update=kept)
            size = self._vocabularies[column.owner].size
            return column.model_copy(
                update={**kept, "dtype": "int", "remap": False, "vocab_size": size}
            )

        sizes = {name: vocabulary.size for name, vocabulary in self._vocabularies.items()}
        columns = tuple(map(encoded, self.state.columns))
        changed = {"columns": columns, "vocabularies": {}, "index_sizes": sizes, "scalers": {},
                   "quantiles": {}}  # fmt: skip
        return Encoder(self.state.model_copy(update=changed))

    def columns(self, *, labelled: bool) -> dict[str, Dtype]:
        """The raw columns that `transform` needs and their types, for `open_source`."""
        columns = {c.name: c.read_as for c in self.state.columns}
        return columns | {self.state.label.name: "str"} if labelled else columns

    def tokens(self, name: str) -> tuple[str, ...] | None:
        """The vocabulary of a field, from index 1 on; None for fields without one."""
        column = next(c for c in self.state.columns if c.name == name)
        return self.state.vocabularies.get(column.owner) if column.has_vocabulary else None

    def transform(
        self,
        batch: pa.RecordBatch,
        *,
        first_row: int = 0,
        file: RowsIn | None = None,
        rows: NDArray[np.int64] | None = None,
        labelled: bool = True,
        label: NDArray[np.float32] | None = None,
        report: EncodingReport | None = None,
    ) -> EncodedRows:
        """Encode a batch of raw rows.

        Args:
            batch: all feature columns, and the label if `labelled`.
            first_row: row number of the first row in the file, for errors.
            file: the file or files, for errors.
            rows: (B,) row numbers in the file, if they are not consecutive.
            labelled: whether the rows have labels.
            label: (B,) 0 or 1; None decodes the label column.
            report: gets the counts of unseen tokens and missing values.

        Raises:
            UserError: a missing column, or a value that cannot be encoded (column, row, value).
        """
        where = Where(first_row, file, rows)
        report = EncodingReport() if report is None else report
        report.rows += batch.num_rows
        if labelled and label is None:
            label = labels(batch, self.state.label.name, where)
        known = self._vocabularies
        transform = Transform(self.state, self._na, known, self.features, batch, where, report)
        return transform.rows(label)

    def save(self, folder: Path) -> None:
        """Write `encoder.json`."""
        write_json(folder / FILE, self.state.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read `encoder.json`.

        Raises:
            UserError: missing, of another version, or damaged.
        """
        file = folder / FILE
        return cls(read_artefact(file, EncoderState, limit=ENCODER_BYTES, remedy="prepare again"))


def _informative(stats: Stats) -> tuple[FieldEncoding, ...]:
    """The columns without constant and duplicate ones, if `drop_redundant` is set."""
    types = {column.name: column.type for column in stats.columns}
    constant, duplicates = redundant(stats.hashes, types)
    if constant:
        say(f"dropped constant columns: {', '.join(constant)}")
    for name, original in duplicates.items():
        say(f"dropped {name}, which equals {original}")
    return tuple(c for c in stats.columns if c.name not in {*constant, *duplicates})


def _totals(
    columns: tuple[FieldEncoding, ...], stats: Stats, dataset: DatasetConfig
) -> dict[str, dict[str, int]]:
    """Counts of each token, by the owner of the vocabulary.

    Raises:
        UserError: a column that shares a vocabulary has no id in common with its owner, which has
            several.
    """
    counts: dict[str, TokenCounts] = {}
    for column in columns:
        if not column.has_vocabulary:
            continue
        counts.setdefault(column.owner, TokenCounts()).merge(stats.tokens[column.name])
        if column.owner == column.name or not column.remap:
            continue
        own, others = (stats.tokens[name].totals() for name in (column.name, column.owner))
        # A constant owner is allowed: an outcome may be "unknown" in every row.
        if own and len(others) > 1 and own.keys().isdisjoint(others):
            raise UserError(
                f"shares the vocabulary of {column.owner}, but not one of its ids"
                f" ({column.owner} has {min(others)!r})",
                file=dataset.train_data,
                column=column.name,
                value=min(own),
                remedy="write both columns' ids the same way, or remove share_embedding",
            )
    return {name: counted.totals() for name, counted in counts.items()}


def _index_size(name: str, size: int | None, totals: dict[str, int]) -> int:
    largest = max(map(int, totals), default=0)
    if largest > 2**32 - 2:
        raise UserError(
            "an index of more than 32 bits", column=name, value=largest, remedy="set remap: true"
        )
    if size is not None and largest >= size:
        raise UserError(
            f"an index beyond vocab_size {size}",
            column=name,
            value=largest,
            remedy="raise vocab_size, or set remap: true",
        )
    return size if size is not None else largest + 2
