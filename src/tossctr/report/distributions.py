"""How long histories are, what is in them, and whether the test file looks like the train file."""

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
from tossctr.data.sources.opening import open_source
from tossctr.location import Location
from tossctr.progress import say
from tossctr.report.sample import evenly, subset
from tossctr.runs.run_folder import Run

Array = NDArray[Any]

ROWS = 20_000  # of each part, evenly spaced
BLOCKS = 10  # ranges of the test file that its rows come from
TOKENS = 15  # commonest ones that are shown


@dataclass(frozen=True)
class Tokens:
    """The commonest events of a history and their share of all events, here and there."""

    names: tuple[str, ...]
    train: tuple[float, ...]
    other: tuple[float, ...]


@dataclass(frozen=True)
class Distributions:
    """A sample of training rows beside one of the test file (the validation part, without one).

    Attributes:
        other: what train is compared with: `test` or `validation`.
        rows: sampled of train and of the other.
        lengths: by sequence, whole lengths of the rows sampled.
        tokens: by sequence of ids.
        drift: population stability index by field, the largest first.
        max_len: by sequence, how many events the model sees.
    """

    other: str
    rows: tuple[int, int]
    lengths: dict[str, tuple[Array, Array]]
    tokens: dict[str, Tokens]
    drift: dict[str, float]
    max_len: dict[str, int | None]


def distributions(run: Run, prepared: Prepared) -> Distributions:
    """Sample both and compare them, as they are encoded for the model. A test file at a URL is not
    opened: the run may be from elsewhere, and nobody has named it here.

    Raises:
        UserError: a test file that is there but cannot be read.
    """
    train = subset(prepared.train, evenly(ROWS, len(prepared.train)))
    test = run.experiment.dataset.test_data
    if isinstance(test, str):
        say(f"drift is measured against the validation part: {test} is not opened for a report")
    if isinstance(test, Path) and (test.is_file() or test.is_dir()):
        parts, other = _of_file(run, test), "test"
    else:
        parts, other = [subset(prepared.valid, evenly(ROWS, len(prepared.valid)))], "validation"
    encoder, features = run.encoder, prepared.train.features
    drift = {}
    for field in features.fields:
        if field.type in ("categorical", "numeric", "sequence"):
            columns = [_column(field.name, [train], encoder), _column(field.name, parts, encoder)]
            index = stability_index(*columns)
            if index is not None:
                drift[field.name] = index
    ragged = features.names("sequence", "numeric_sequence")
    return Distributions(
        other=other,
        rows=(len(train), sum(map(len, parts))),
        lengths={n: (train.sequences[n].lengths, _lengths(parts, n)) for n in ragged},
        tokens={n: _tokens(n, train, parts, encoder) for n in features.names("sequence")},
        drift=dict(sorted(drift.items(), key=lambda item: -item[1])),
        max_len={n: run.features[n].max_len for n in ragged},
    )


def _of_file(run: Run, path: Location) -> list[EncodedRows]:
    """Encoded rows from evenly spaced places of a file; the first ones of a file that does not say
    how many it has."""
    dataset = run.experiment.dataset
    columns = run.encoder.columns(labelled=False)
    source = open_source(path, columns, encoded=dataset.encoded, na_values=dataset.na_values)
    encoder = run.encoder
    if source.vocabulary is not None and not dataset.encoded:
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


def _lengths(parts: list[EncodedRows], name: str) -> Array:
    return np.concatenate([part.sequences[name].lengths for part in parts])


def _column(name: str, parts: list[EncodedRows], encoder: Encoder) -> ColumnHealth:
    """A field's values as `tossctr check` compares them."""
    field_type = encoder.features[name].type
    rows = sum(map(len, parts))
    if field_type == "numeric":
        at = encoder.features.names("numeric").index(name)
        numbers, row = ColumnHealth(name, "", "numbers", rows=rows), 0
        for part in parts:
            numbers.add_sample(part.numeric[:, at], row)
            row += len(part)
        return numbers
    if field_type == "categorical":
        texts = ColumnHealth(name, "", "texts", rows=rows)
        texts.counts = _counted([part.ids(name) for part in parts])
        return texts
    events, row = ColumnHealth(name, "", "sequences", rows=rows), 0
    for part in parts:
        events.add_sample(part.sequences[name].lengths, row)
        row += len(part)
    events.counts = _counted([part.sequences[name].values for part in parts])
    return events


def _counted(arrays: list[Array]) -> Counter[str]:
    total: Counter[str] = Counter()
    for array in arrays:
        ids, counts = np.unique(array, return_counts=True)
        total.update(dict(zip(map(str, ids.tolist()), counts.tolist(), strict=True)))
    return total


def _tokens(name: str, train: EncodedRows, parts: list[EncodedRows], encoder: Encoder) -> Tokens:
    here = _counted([train.sequences[name].values])
    there = _counted([part.sequences[name].values for part in parts])
    common = [index for index, _ in here.most_common(TOKENS)]
    of_train, of_other = max(here.total(), 1), max(there.total(), 1)
    return Tokens(
        names=tuple(token_name(encoder, name, int(index)) for index in common),
        train=tuple(here[index] / of_train for index in common),
        other=tuple(there[index] / of_other for index in common),
    )


def token_name(encoder: Encoder, field: str, index: int) -> str:
    """A vocabulary index as the raw files spell it."""
    tokens = encoder.tokens(field)
    if tokens is None:
        return str(index)
    if 1 <= index <= len(tokens):
        return tokens[index - 1]
    return "none" if index == 0 else "others"
