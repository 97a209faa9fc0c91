"""Export a prepared data set, or a raw file through its encoder, to files that FuxiCTR reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoded.feature_map import MAP, VOCAB, WITH_VOCABULARY, FuxiFeature, FuxiMap
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.ids import row_ids
from tossctr.data.features import FeatureMap, Field
from tossctr.data.prepare import Prepared
from tossctr.data.rows import Array, EncodedRows
from tossctr.data.sources.base import BATCH_ROWS
from tossctr.data.sources.opening import open_source
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.files import locked, write_json
from tossctr.folders import whole_files
from tossctr.interop.formats import Format
from tossctr.interop.fuxictr_files import columns_of, writing
from tossctr.location import Location, beside, name_of
from tossctr.progress import say, track

SPLITS = ("train", "valid", "test")
_REMEDY = "choose another --output, or replace it with --force"
_POOLING = "layers.MaskedAveragePooling()"  # FuxiCTR's default for a sequence
_IN_FUXICTR = ("categorical", "numeric", "meta", "sequence")


@dataclass(frozen=True)
class Export:
    """The parameters of an export.

    Attributes:
        encoder: fit on the data set's training rows.
        features: all fields; `max_len` of a sequence is its padded length.
        unbounded: sequences without a `max_len` in the config, padded to the longest one.
    """

    encoder: Encoder
    features: FeatureMap
    dataset: DatasetConfig
    unbounded: tuple[str, ...]

    @classmethod
    def of(cls, data: Prepared, dataset: DatasetConfig, max_len: int | None = None) -> Export:
        """The padded length is `max_len`, else the data set's, else the longest sequence of
        training and validation."""
        features = data.encoder.features.with_lengths(dataset, max_len)
        fields = tuple(_bounded(f, (data.train, data.valid)) for f in features.fields)
        unbounded = tuple(
            f.name for f in features.fields if f.type.endswith("sequence") and f.max_len is None
        )
        bounded = features.model_copy(update={"fields": fields})
        return cls(data.encoder, bounded, dataset, unbounded)

    def write_maps(self, folder: Path) -> None:
        """Write `feature_map.json` and `feature_vocab.json`, without times and number sequences:
        FuxiCTR does not support them, and ignores columns that are not in the map."""
        sources = {spec.name: spec.source for spec in self.dataset.features}
        known = tuple(f for f in self.features.fields if f.type in _IN_FUXICTR)
        others = [f.name for f in self.features.fields if f not in known]
        if others:
            say(f"FuxiCTR has no features like {', '.join(others)}, and ignores them")
        feature_map(self.encoder.features, known, sources).write(folder)
        names = self.features.names("categorical", "sequence")
        write_vocabularies(self.encoder, names, folder)

    def write_rows(self, rows: EncodedRows, path: Path) -> None:
        """Write encoded, labelled rows; the suffix of `path` gives the format."""
        with writing(path, self.encoder.hash) as append, track(path.name, len(rows)) as advance:
            for numbers in _ranges(len(rows)):
                append(self._columns(rows, numbers))
                advance(len(numbers))

    def write_raw(self, source_path: Location, path: Path) -> int:
        """Encode a raw file and write it, with the data set's id column.

        FuxiCTR requires labels, so a missing label is written as 0.

        Raises:
            UserError: a missing column, or a value that cannot be encoded.
        """
        label, id_col = self.encoder.features.label, self.dataset.id_col
        encoded = self.dataset.encoded
        names = open_source(source_path, encoded=encoded).names
        labelled = label in names
        columns = self.encoder.columns(labelled=labelled)
        if id_col is not None and id_col in names:
            columns = {**columns, id_col: "str"}
        else:
            id_col = None
        if not labelled:
            say(
                f"{name_of(source_path)} has no {label}: written as 0, which FuxiCTR's loader needs"
            )
        na_values = self.dataset.na_values
        source = open_source(source_path, columns, encoded=encoded, na_values=na_values)
        row = cut = 0
        with (
            writing(path, self.encoder.hash) as append,
            track(path.name, source.num_rows) as advance,
        ):
            for batch in source.batches():
                rows = self.encoder.transform(
                    batch, first_row=row, file=source.file, labelled=labelled
                )
                cut += self._cut(rows)
                written = self._columns(rows, np.arange(len(rows)))
                if id_col is not None:
                    where = Where(row, source.file)
                    with where.reading(id_col):
                        ids = row_ids(batch.column(id_col), na_values, id_col, where)
                    if path.suffix == ".h5":
                        _refuse_nul(ids, id_col, where)
                    written[id_col] = np.array(ids.to_pylist(), object)
                append(written)
                advance(len(rows))
                row += len(rows)
        if cut:
            say(f"{cut:,} sequences were longer than any in training and were cut: give max_len")
        return row

    def _cut(self, rows: EncodedRows) -> int:
        """The number of cut sequences whose field has no `max_len` in the config."""
        ragged = {**rows.sequences, **rows.time_sequences}
        return sum(
            int((ragged[name].lengths > (self.features[name].max_len or 0)).sum())
            for name in self.unbounded
        )

    def _columns(self, rows: EncodedRows, numbers: Array) -> dict[str, Array]:
        batch = replace(rows, features=self.features).take(numbers)
        label = np.zeros(len(numbers), np.float32) if batch.label is None else batch.label.numpy()
        return {**columns_of(batch, self.features), self.encoder.features.label: label}


def export(
    data: Prepared,
    dataset: DatasetConfig,
    folder: Path,
    form: Format,
    *,
    splits: Sequence[str] = SPLITS,
    max_len: int | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Write splits of a data set and their feature map for FuxiCTR.

    Args:
        data: the prepared data set.
        dataset: its config; `test` is written if it has `test_data`.
        folder: gets `train.h5` or `.parquet`, ..., `feature_map.json` and `feature_vocab.json`.
        form: the file format.
        splits: the splits to write.
        max_len: overrides the data set's.
        force: replace files that TossCTR did not export.

    Returns:
        Rows written, by split.

    Raises:
        UserError: `folder` holds the files of the (encoded) data set, or files that an export did
            not write; another process exports to it; or the disk is full. Then the folder is
            unchanged.
    """
    theirs = beside(dataset.train_data, MAP)
    if dataset.encoded and theirs is not None and (folder / MAP).resolve() == theirs.resolve():
        raise UserError(
            "holds the files that would be exported", file=folder, remedy="name another folder"
        )
    rows: dict[str, int] = {}
    names = [*(split + form.suffix for split in splits), MAP, VOCAB]
    with (
        locked(folder / ".export.lock", f"the export {folder}"),
        whole_files(folder, "export", names, remedy=_REMEDY, force=force) as temporary,
    ):
        written = Export.of(data, dataset, max_len)
        for split in splits:
            path = temporary / (split + form.suffix)
            if split != "test":
                encoded = data.train if split == "train" else data.valid
                written.write_rows(encoded, path)
                rows[split] = len(encoded)
            elif dataset.test_data is not None:
                rows[split] = written.write_raw(dataset.test_data, path)
        written.write_maps(temporary)
    return rows


def feature_map(
    features: FeatureMap, fields: Sequence[Field], sources: Mapping[str, str]
) -> FuxiMap:
    """FuxiCTR's feature map of these fields.

    Args:
        features: give the data set's id and label.
        fields: the fields to list; sequences have a `max_len`.
        sources: a feature's `source` in the config, by name.
    """
    listed = {f.name: _feature(f, sources.get(f.name, "")) for f in fields}
    return FuxiMap(features.dataset_id, (features.label,), listed)


def _feature(field: Field, source: str) -> FuxiFeature:
    fuxi_type = field.type.removesuffix("_sequence")
    ragged = field.type.endswith("sequence")
    return FuxiFeature(
        type=fuxi_type,
        source=source,
        feature_encoder=field.feature_encoder or (_POOLING if field.type == "sequence" else None),
        embedding_dim=field.embedding_dim,
        share_embedding=field.share_embedding,
        padding_idx=0 if fuxi_type in WITH_VOCABULARY else None,
        max_len=field.max_len if ragged else None,
        vocab_size=field.vocab_size,
    )


def write_vocabularies(encoder: Encoder, names: tuple[str, ...], folder: Path) -> None:
    """Write `feature_vocab.json`: the index of each token, by feature."""
    vocabularies: dict[str, dict[str, int]] = {}
    for name in names:
        size = encoder.features[name].vocab_size
        if size is None:
            continue
        tokens = encoder.tokens(name) or tuple(map(str, range(1, size - 1)))
        indices = {token: index for index, token in enumerate(tokens, start=1)}
        vocabularies[name] = {"__PAD__": 0, **indices, "__OOV__": size - 1}
    write_json(folder / VOCAB, vocabularies)


def _refuse_nul(ids: pa.Array, column: str, where: Where) -> None:
    found = pc.match_substring(ids, "\0")
    if pc.any(found).as_py():
        at = pc.index(found, True).as_py()
        raise where.error(
            "an id with a NUL character, which terminates text in H5",
            column,
            at,
            ids[at].as_py(),
            "correct the id, or export as fuxictr-parquet",
        )


def _ranges(rows: int) -> Iterator[Array]:
    for start in range(0, rows, BATCH_ROWS):
        yield np.arange(start, min(start + BATCH_ROWS, rows))


def _bounded(field: Field, splits: Sequence[EncodedRows]) -> Field:
    if not field.type.endswith("sequence") or field.max_len is not None:
        return field
    ragged = [{**rows.sequences, **rows.time_sequences}[field.name] for rows in splits]
    longest = max(int(array.lengths.max(initial=0)) for array in ragged)
    return field.model_copy(update={"max_len": max(longest, 1)})
