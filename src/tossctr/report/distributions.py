"""History lengths, frequent events, and drift between train and test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tossctr.data.encoder import Encoder
from tossctr.data.health.column import ColumnHealth
from tossctr.data.health.drift import stability_index
from tossctr.data.prepare import Prepared
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.base import BATCH_ROWS
from tossctr.inference.predict import FittedModel, open_rows
from tossctr.location import Location
from tossctr.progress import say
from tossctr.report.sample import evenly, subset

Array = NDArray[Any]

ROWS = 20_000  # sampled rows of each split, evenly spaced
BLOCKS = 10  # the sample of the test file consists of this many ranges
TOKENS = 15  # most frequent events shown


@dataclass(frozen=True)
class Tokens:
    """The most frequent events of a history and their shares of all events."""

    names: tuple[str, ...]
    train: tuple[float, ...]
    other: tuple[float, ...]


@dataclass(frozen=True)
class Distributions:
    """A sample of training rows compared with one of test rows (without a test file, validation
    rows).

    Attributes:
        other: what train is compared with: `test` or `validation`.
        rows: number of sampled rows of train and of the other.
        lengths: untruncated lengths by sequence, of train and of the other.
        tokens: by sequence of ids.
        drift: population stability index by field, the largest first.
        max_len: by sequence, the number of events that the model sees.
    """

    other: str
    rows: tuple[int, int]
    lengths: dict[str, tuple[Array, Array]]
    tokens: dict[str, Tokens]
    drift: dict[str, float]
    max_len: dict[str, int | None]


def distributions(run: FittedModel, prepared: Prepared) -> Distributions:
    """Compare samples of encoded rows. A test file at a URL is not opened: the run may come from
    someone else, and the user has not asked for that URL.

    Raises:
        UserError: the test file exists but cannot be read.
    """
    train = subset(prepared.train, evenly(ROWS, len(prepared.train)))
    test = run.experiment.dataset.test_data
    if isinstance(test, str):
        say(f"drift is measured on the validation rows: a report does not open {test}")
    if isinstance(test, Path) and (test.is_file() or test.is_dir()):
        sampled, other = _of_file(run, test), "test"
    else:
        sampled, other = [subset(prepared.valid, evenly(ROWS, len(prepared.valid)))], "validation"
    encoder, features = run.encoder, prepared.train.features
    drift = {}
    for field in features.fields:
        if field.type in ("categorical", "numeric", "sequence"):
            columns = [_column(field.name, rows, encoder) for rows in ([train], sampled)]
            index = stability_index(*columns)
            if index is not None:
                drift[field.name] = index
    ragged = features.names("sequence", "numeric_sequence")
    return Distributions(
        other=other,
        rows=(len(train), sum(map(len, sampled))),
        lengths={n: (train.sequences[n].lengths, _lengths(sampled, n)) for n in ragged},
        tokens={n: _tokens(n, train, sampled, encoder) for n in features.names("sequence")},
        drift=dict(sorted(drift.items(), key=lambda item: -item[1])),
        max_len={n: run.features[n].max_len for n in ragged},
    )


def _of_file(run: FittedModel, path: Location) -> list[EncodedRows]:
    """Encoded rows from evenly spaced ranges of a file; the first rows if it has no row count."""
    source = open_rows(run, path)
    encoder = run.encoder
    if source.vocabulary is not None and not run.experiment.dataset.encoded:
        encoder = encoder.of_encoded()
    rows = source.num_rows or 0
    block = ROWS // BLOCKS
    starts = [0]
    if rows > ROWS:
        starts = evenly(BLOCKS, rows - block + 1).tolist()
    encoded = []
    for start in starts:
        stop = start + (block if len(starts) > 1 else ROWS)
        for batch in source.batches(start=start, stop=stop, batch_rows=min(BATCH_ROWS, block)):
            encoded.append(
                encoder.transform(batch, first_row=start, file=source.file, labelled=False)
            )
            start += batch.num_rows
    return encoded


def _lengths(batches: list[EncodedRows], name: str) -> Array:
    return np.concatenate([rows.sequences[name].lengths for rows in batches])


def _column(name: str, batches: list[EncodedRows], encoder: Encoder) -> ColumnHealth:
    """A field's values in the form that `tossctr check` compares."""
    field_type = encoder.features[name].type
    rows = sum(map(len, batches))
    if field_type == "numeric":
        at = encoder.features.names("numeric").index(name)
        numbers, row = ColumnHealth(name, "", "numbers", rows=rows), 0
        for batch in batches:
            numbers.add_sample(batch.numeric[:, at], row)
            row += len(batch)
        return numbers
    if field_type == "categorical":
        texts = ColumnHealth(name, "", "texts", rows=rows)
        texts.counts = _counted([batch.ids(name) for batch in batches])
        return texts
    events, row = ColumnHealth(name, "", "sequences", rows=rows), 0
    for batch in batches:
        events.add_sample(batch.sequences[name].lengths, row)
        row += len(batch)
    events.counts = _counted([batch.sequences[name].values for batch in batches])
    return events


def _counted(arrays: list[Array]) -> Counter[str]:
    total: Counter[str] = Counter()
    for array in arrays:
        ids, counts = np.unique(array, return_counts=True)
        total.update(dict(zip(map(str, ids.tolist()), counts.tolist(), strict=True)))
    return total


def _tokens(name: str, train: EncodedRows, other: list[EncodedRows], encoder: Encoder) -> Tokens:
    counts = _counted([train.sequences[name].values])
    others = _counted([rows.sequences[name].values for rows in other])
    frequent = [index for index, _ in counts.most_common(TOKENS)]
    total, total_other = max(counts.total(), 1), max(others.total(), 1)
    return Tokens(
        names=tuple(token_name(encoder, name, int(index)) for index in frequent),
        train=tuple(counts[index] / total for index in frequent),
        other=tuple(others[index] / total_other for index in frequent),
    )


def token_name(encoder: Encoder, field: str, index: int) -> str:
    """The raw value of a vocabulary index."""
    tokens = encoder.tokens(field)
    if tokens is None:
        return str(index)
    if 1 <= index <= len(tokens):
        return tokens[index - 1]
    return "none" if index == 0 else "others"
