"""A synthetic Toss data set in the raw layout, with known click probabilities.

Rows are generated in blocks of 4,096 with a generator each, so that memory is bounded and values do
not depend on row groups or threads. With the same seed, row i of a split is the same in files of
any size, except for `day_of_week` and `hour`, which cover the whole file, and what depends on the
hour: the probability, the click and `history_*`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import logit as log_odds

from tossctr.data import schema
from tossctr.data.synthetic.columns import clock, draw_numeric, draw_people
from tossctr.data.synthetic.history import draw_history
from tossctr.data.synthetic.sequences import draw_events, draw_lengths, joined
from tossctr.data.synthetic.truth import logit_parts, true_probability
from tossctr.folders import is_interrupted, is_made, whole_files
from tossctr.progress import track

Array = NDArray[Any]

NAMES = ("train.parquet", "test.parquet", "sample_submission.csv", "truth.parquet")
BLOCK_ROWS = 4096  # another size would change all values of a seed
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("probability", pa.float64()),
        pa.field(schema.LABEL, pa.int32()),
    ]
)
# Other columns rarely repeat a value, so a dictionary would cost time and space.
_DICTIONARY = [*schema.CATEGORICAL, *schema.L_FEATURES, *schema.A_FEATURES]


@dataclass(frozen=True)
class SyntheticFiles:
    """The files that `synthesize` writes."""

    train: Path
    test: Path
    sample_submission: Path
    truth: Path

    @classmethod
    def of(cls, folder: Path) -> SyntheticFiles:
        """Their paths in a folder."""
        return cls(*(folder / name for name in NAMES))


def may_hold_synthetic(folder: Path) -> bool:
    """Whether a folder is empty, or holds only files of `synthesize` that it may replace."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return not os.path.lexists(folder) or folder.is_dir()
    if not is_made(folder, "synthetic"):
        return False
    return is_interrupted(folder, "synthetic") or not any(
        os.path.lexists(folder / name) for name in NAMES
    )


@dataclass(frozen=True)
class Block:
    """Up to 4,096 consecutive rows of one split.

    Attributes:
        features: the 118 columns that train and test share.
        parts: the parts of the logit by name, (rows,) float64.
        probability: (rows,) float64, the true probability of a click.
        clicked: (rows,) int32, drawn from it.
    """

    features: pa.RecordBatch
    parts: dict[str, Array]
    probability: Array
    clicked: Array


def synthesize(
    folder: Path,
    train_rows: int,
    test_rows: int,
    *,
    seed: int = 2024,
    blocks_per_group: int = 8,
    force: bool = False,
) -> SyntheticFiles:
    """Write train.parquet, test.parquet, sample_submission.csv and truth.parquet into `folder`.

    truth.parquet has `split` ('train' or 'test'), `row` (0-based within the split), `probability`
    and `clicked` of every row, also of test. All files appear together once they are complete, and
    replace those of an earlier call.

    Args:
        folder: created if missing.
        train_rows: at least 1; they cover seven days.
        test_rows: at least 1; they cover the day after.
        seed: of the data. The click model is fixed.
        blocks_per_group: blocks of 4,096 rows in a Parquet row group, held in memory at once
            (about 10 MB each). No value depends on it.
        force: replace files that `synthesize` did not write.

    Raises:
        UserError: `synthesize` did not write a file of one of these names, or the disk is full.
        ValueError: a count below 1.
    """
    if min(train_rows, test_rows, blocks_per_group) < 1:
        counts = (train_rows, test_rows, blocks_per_group)
        raise ValueError(f"rows and blocks must be at least 1, got {counts}")
    files = SyntheticFiles.of(folder)
    remedy = "choose another folder, or give --force to replace it"
    with (
        whole_files(folder, "synthetic", NAMES, remedy=remedy, force=force) as written,
        ExitStack() as stack,
    ):

        def parquet(path: Path, layout: pa.Schema) -> pq.ParquetWriter:
            writer = pq.ParquetWriter(written / path.name, layout, use_dictionary=_DICTIONARY)
            return stack.enter_context(writer)

        train = parquet(files.train, schema.TRAIN_SCHEMA)
        test = parquet(files.test, schema.TEST_SCHEMA)
        truth = parquet(files.truth, TRUTH_SCHEMA)
        whole = written / files.sample_submission.name
        plain = pa_csv.WriteOptions(quoting_header="none", quoting_style="none")
        submission = stack.enter_context(
            pa_csv.CSVWriter(whole, schema.SUBMISSION_SCHEMA, write_options=plain)
        )
        advance = stack.enter_context(track("synth", train_rows + test_rows))
        for split, rows in (("train", train_rows), ("test", test_rows)):
            blocks, first = make_blocks(split, rows, seed), 0
            while group := list(islice(blocks, blocks_per_group)):
                features = pa.Table.from_batches([block.features for block in group])
                probability = np.concatenate([block.probability for block in group])
                clicked = pa.array(np.concatenate([block.clicked for block in group]))
                row = np.arange(first, first + len(features))
                truth.write_table(
                    pa.table([pa.repeat(split, len(row)), row, probability, clicked], TRUTH_SCHEMA)
                )
                if split == "train":
                    train.write_table(features.append_column(schema.LABEL, clicked))
                else:
                    ids = _test_ids(row)
                    test.write_table(features.add_column(0, schema.ID, ids))
                    zero = pa.repeat(0, len(row))
                    submission.write_table(pa.table([ids, zero], schema.SUBMISSION_SCHEMA))
                first += len(row)
                advance(len(row))
    return files


def make_blocks(split: str, rows: int, seed: int) -> Iterator[Block]:
    """The blocks of a split, in order, generated ahead by several threads."""
    workers = min(os.cpu_count() or 1, 4)  # more would wait for the single writer
    pending: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, rows, BLOCK_ROWS):
            pending.append(pool.submit(make_block, split, first // BLOCK_ROWS, rows, seed))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def make_block(split: str, block: int, total_rows: int, seed: int) -> Block:
    """Block number `block` of a split of `total_rows` rows."""
    sequence = np.random.SeedSequence((seed, ("train", "test").index(split), block))
    people_rng, numeric_rng, event_rng, history_rng, click_rng = (
        np.random.default_rng(child) for child in sequence.spawn(5)
    )
    # Always a full block, cut afterwards, so that rows do not depend on the size of the file.
    people = draw_people(people_rng, BLOCK_ROWS)
    known = people["gender"] > 0
    numeric = draw_numeric(numeric_rng, known)
    values, offsets = draw_events(event_rng, draw_lengths(event_rng, BLOCK_ROWS))
    time = clock(split, block * BLOCK_ROWS, BLOCK_ROWS, total_rows)
    parts = logit_parts(people, time["hour"], numeric, values, offsets)
    probability = true_probability(parts)
    history = draw_history(history_rng, log_odds(probability), known)
    clicked = (click_rng.random(BLOCK_ROWS) < probability).astype(np.int32)

    columns: dict[str, pa.Array] = {
        "gender": _decimal(people["gender"], ".0", known),
        "age_group": _decimal(people["age_group"], ".0", known),
        "inventory_id": _decimal(people["inventory_id"]),
        "day_of_week": _decimal(time["day_of_week"]),
        "hour": pc.utf8_lpad(_decimal(time["hour"]), 2, "0"),
        schema.SEQUENCE: joined(values, offsets),
    }
    for name, array in (numeric | history).items():
        columns[name] = pa.array(array, pa.float32(), from_pandas=True)  # NaN becomes null
    features = pa.record_batch([columns[name] for name in schema.FEATURES], schema.FEATURE_SCHEMA)
    rows = min(BLOCK_ROWS, total_rows - block * BLOCK_ROWS)
    return Block(
        features=features.slice(0, rows),
        parts={name: part[:rows] for name, part in parts.items()},
        probability=probability[:rows],
        clicked=clicked[:rows],
    )


def _decimal(numbers: Array, suffix: str = "", known: Array | None = None) -> pa.Array:
    """Integers as text; null if unknown."""
    array = pa.array(numbers, mask=None if known is None else ~known)
    return pc.binary_join_element_wise(pc.cast(array, pa.string()), suffix, "")


def _test_ids(row: Array) -> pa.Array:
    """Ids `TEST_0000000`, ... of test rows."""
    digits = pc.utf8_lpad(pc.cast(pa.array(row), pa.string()), 7, "0")
    return pc.binary_join_element_wise("TEST_", digits, "")
