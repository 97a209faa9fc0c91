"""Raw rows straight to predictions, in batches, in their own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tossctr.config.schema import Experiment
from tossctr.data.encoded.source import require_vocabulary
from tossctr.data.encoder import Encoder, EncodingReport
from tossctr.data.encoding.ids import row_ids
from tossctr.data.features import FeatureMap
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.base import Source
from tossctr.data.sources.bounded import BATCH_BYTES, first_rows, row_bytes
from tossctr.data.sources.opening import open_source
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.families.registry import family_of
from tossctr.location import Location
from tossctr.training.family import TrainedModel

BATCH_ROWS = 4096


# With slots, fields of `Run` take precedence over properties of `Predictor` with the same names.
@dataclass(frozen=True, slots=True)
class FittedModel:
    """A trained model with everything that turns raw rows into its logits.

    Attributes:
        folder: of its run.
        metrics: the content of metrics.json.
    """

    folder: Path
    experiment: Experiment
    encoder: Encoder
    features: FeatureMap
    model: TrainedModel
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Predictions:
    """Consecutive rows.

    Attributes:
        logit: (n,) float64.
        label: (n,) float32 where the source was read with labels.
        id: (n,) Arrow strings of the id column, or row numbers.
        group: (n,) the value of the experiment's `group_id`, of labelled rows.
    """

    logit: NDArray[np.float64]
    label: NDArray[np.float32] | None
    id: pa.Array
    group: NDArray[Any] | None = None

    @property
    def labels(self) -> NDArray[np.float32]:
        """(n,).

        Raises:
            ValueError: the source was read without labels.
        """
        if self.label is None:
            raise ValueError("the rows were read without labels")
        return self.label


def open_rows(
    model: FittedModel, path: Location, *, labelled: bool = False, id_col: str | None = None
) -> Source:
    """Open a raw or encoded file for the columns that a model needs."""
    columns = model.encoder.columns(labelled=labelled)
    if id_col is not None:
        columns = {**columns, id_col: "str"}
    dataset = model.experiment.dataset
    return open_source(path, columns, encoded=dataset.encoded, na_values=dataset.na_values)


def predict_source(
    models: Sequence[FittedModel],
    source: Source,
    *,
    device: torch.device,
    start: int,
    stop: int | None,
    batch_rows: int,
    labelled: bool = False,
    id_col: str | None = None,
    report: EncodingReport | None = None,
) -> Iterator[Predictions]:
    """Predict the rows of a source by the mean of models on one encoder; arguments as in
    `Predictor.logits`."""
    experiment = models[0].experiment
    group_id = experiment.training.group_id
    encoder = _encoder_for(source, models[0])
    na = frozenset(experiment.dataset.na_values)
    row = start
    raw = source.batches(start=start, stop=stop, batch_rows=batch_rows)
    for batch in _even(raw, batch_rows):
        where = Where(row, source.file)
        encoded = encoder.transform(
            batch, first_row=row, file=source.file, labelled=labelled, report=report
        )
        row += len(encoded)
        logit = mean_logits(models, encoded, device=device)
        if id_col is not None:
            with where.reading(id_col):
                ids = row_ids(batch.column(id_col), na, id_col, where)
        else:
            ids = pa.array(np.arange(row - len(encoded), row))
        group = encoded.groups(group_id) if labelled and group_id is not None else None
        yield Predictions(logit, encoded.label, ids, group)


def mean_logits(
    models: Sequence[FittedModel], rows: EncodedRows, *, device: torch.device
) -> NDArray[np.float64]:
    """(N,) means over models on one encoder."""
    mean: NDArray[np.float64] = np.mean(
        [predict_rows(model, rows, device=device) for model in models], axis=0
    )
    return mean


def _even(stream: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Rebatch the stream into batches of `rows` rows, so that sums over a batch depend neither on
    the source's batches nor on the multiple of `rows` from which predicting starts. Rows too large
    for one batch become several, also split at fixed positions."""
    held: list[pa.RecordBatch] = []
    count = size = 0  # rows since the last multiple, and bytes held
    for batch in stream:
        while batch.num_rows:
            sizes = row_bytes(batch.slice(0, rows - count))
            cut = first_rows(np.append(size, sizes), BATCH_BYTES) - 1 if held else 0
            if not held:
                cut = first_rows(sizes, BATCH_BYTES)
            if cut:
                held.append(batch.slice(0, cut))
                count, size, batch = count + cut, size + int(sizes[:cut].sum()), batch.slice(cut)
            if count == rows or cut < len(sizes):
                yield from _whole(held)
                held, size = [], 0
                count %= rows
    if held:
        yield from _whole(held)


def _whole(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """As one batch (several only where one cannot hold that much text)."""
    if len(batches) == 1:
        return batches
    whole: list[pa.RecordBatch] = (
        pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    )
    return whole


def _encoder_for(source: Source, fitted: FittedModel) -> Encoder:
    """The model's encoder, or for a file of indices that it made, the one that takes them as they
    are."""
    dataset = fitted.experiment.dataset
    if dataset.encoded or source.vocabulary is None:
        require_vocabulary(source, dataset.vocabulary)
        return fitted.encoder
    require_vocabulary(source, fitted.encoder.hash)
    filled = [f.name for f in fitted.features.fields if f.missing is not None]
    if filled and family_of(fitted.experiment.model).uses_missing:
        raise UserError(
            f"has missing numbers filled in, but the model needs them missing: {filled[0]}",
            file=source.path,
            remedy="give the raw file, or train with fill_na for its columns of numbers",
        )
    return fitted.encoder.of_encoded()


def predict_rows(
    fitted: FittedModel, rows: EncodedRows, *, device: torch.device
) -> NDArray[np.float64]:
    """(N,) float64 logits of encoded rows, in their order, `BATCH_ROWS` at a time."""
    rows = replace(rows, features=fitted.features)
    return fitted.model.logits(rows, device=device, batch_rows=BATCH_ROWS)


def gather(
    parts: Iterator[Predictions], file: Location
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """All labels, logits and groups (if any) of labelled predictions: 12 to 20 bytes a row.

    Raises:
        UserError: there are no rows in `file`, which they are of.
    """
    labels, logits, groups = [], [], []
    for part in parts:
        labels.append(part.labels)
        logits.append(part.logit)
        if part.group is not None:
            groups.append(part.group)
    if not labels:
        raise UserError("has no rows to evaluate", file=file, remedy="name a file with rows")
    return (
        np.concatenate(labels),
        np.concatenate(logits),
        np.concatenate(groups) if groups else None,
    )
