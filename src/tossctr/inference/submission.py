"""Predictions in the sample submission's order and format, checked before they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.data.encoding.ids import AmbiguousIdError, same_ids
from tossctr.errors import UserError
from tossctr.inference.predict import Predictions
from tossctr.location import require_readable
from tossctr.outputs import output_file
from tossctr.progress import say

_SPECIAL = '[",\r\n]'  # what a CSV field is quoted for


@dataclass(frozen=True)
class Sample:
    """A sample submission: its two column names and its ids, in its order."""

    file: Path
    header: tuple[str, str]
    ids: pa.Array


def write_submission(
    chunks: Iterator[Predictions],
    output: Path,
    *,
    sample: Sample | None,
    header: tuple[str, str],
    force: bool = False,
) -> int:
    """Write an id and a probability for each row of the sample submission, in its order.

    Ids and probabilities are held (about 20 bytes a row); rows and their features are not.

    Args:
        chunks: predictions with ids.
        output: the CSV to write; it appears only when every check has passed.
        sample: gives header and order; None writes the predictions in their own order, repeated
            ids included, which are counted in a line.
        header: the two column names where there is no sample.
        force: replace a file there that TossCTR did not write.

    Returns:
        The number of rows written.

    Raises:
        UserError: ids that are missing, unknown or repeated, a wrong row count, a probability
            that is not a number from 0 to 1, or an output that may not be replaced.
    """
    ids, probability = _collect(chunks)
    _check_probabilities(ids, probability)
    if sample is None:
        _say_repeated(ids, header[0])
    else:
        probability = probability[_match(ids, sample)]
        header, ids = sample.header, sample.ids
    table = pa.table([ids, pa.array(probability)], names=list(header))
    # Arrow's "needed" quotes every text; the samples of competitions quote none.
    special = pc.any(pc.match_substring_regex(ids, _SPECIAL)).as_py()
    in_header = pc.any(pc.match_substring_regex(pa.array(header), _SPECIAL)).as_py()
    options = pyarrow.csv.WriteOptions(
        quoting_style="needed" if special else "none",
        quoting_header="needed" if in_header else "none",
    )
    with output_file(output, force=force) as temporary:
        pyarrow.csv.write_csv(table, temporary, options)
    return len(table)


def read_sample(file: Path) -> Sample:
    """Read a sample submission. The content of any other file is not shown.

    Raises:
        UserError: missing, not a CSV in UTF-8, not of two columns, empty, or with a repeated id.
    """
    original = "give the original file with --sample"
    try:
        require_readable(file)
        if file.is_dir():
            raise UserError("is a folder, not a sample submission", file=file, remedy=original)
        names = pyarrow.csv.open_csv(file).schema.names
        if len(names) != 2 or names[0] == names[1]:
            raise UserError(
                f"a sample submission has two columns, this has {len(names)}"
                if len(names) != 2
                else "a sample submission has two columns of different names",
                file=file,
                remedy=original,
            )
        table = pyarrow.csv.read_csv(
            file,
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=names[:1], column_types={names[0]: pa.large_string()}
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UserError(
            "cannot be read as a sample submission: it is not CSV of two columns in UTF-8",
            file=file,
            remedy=original,
        ) from error
    ids = table.column(0).combine_chunks()
    if not len(ids):
        raise UserError("a sample submission without rows", file=file, remedy=original)
    _refuse_repeated(_same(ids, file), file, "the sample submission")
    return Sample(file, (names[0], names[1]), ids)


def check_count(sample: Sample, rows: int) -> None:
    """Raises:
    UserError: the sample has more rows, or fewer, than are scored.
    """
    if len(sample.ids) != rows:
        raise UserError(
            f"has {len(sample.ids):,} rows, but the test file has {rows:,}",
            file=sample.file,
            remedy="give the test file that belongs to this sample",
        )


def _collect(parts: Iterator[Predictions]) -> tuple[pa.Array, NDArray[np.float64]]:
    ids: list[pa.Array] = []
    probabilities: list[NDArray[np.float64]] = []
    for part in parts:
        ids.append(part.id.cast(pa.large_string()))
        probabilities.append(expit(part.logit))
    if not ids:
        return pa.array([], pa.large_string()), np.empty(0)
    return pa.concat_arrays(ids), np.concatenate(probabilities)


def _check_probabilities(ids: pa.Array, probability: NDArray[np.float64]) -> None:
    bad = ~((probability >= 0) & (probability <= 1))  # True for NaN
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            "the model's output is not a probability",
            row=row,
            value=float(probability[row]),
            remedy=f"check the input of id {ids[row].as_py()}",
        )


def _match(ids: pa.Array, sample: Sample) -> NDArray[np.int64]:
    """The position of each of the sample's ids among the predictions; '7', 7.0 and '7.0' are one
    id."""
    check_count(sample, len(ids))
    keys = _same(ids, sample.file)
    _refuse_repeated(keys, None, "the test file")
    where = pc.index_in(_same(sample.ids, sample.file), value_set=keys)
    if where.null_count:
        value = sample.ids.filter(pc.is_null(where))[0].as_py()
        raise UserError(
            "an id that is not in the test file",
            file=sample.file,
            value=value,
            remedy="give the test file that belongs to this sample",
        )
    order: NDArray[np.int64] = where.to_numpy().astype(np.int64)
    return order


def _same(ids: pa.Array, sample: Path) -> pa.Array:
    try:
        return same_ids(ids)
    except AmbiguousIdError as error:
        raise UserError(
            "a float too large to identify a single id",
            file=sample,
            value=str(error),
            remedy="write the ids as integers or as text",
        ) from error


def _say_repeated(ids: pa.Array, name: str) -> None:
    """Not an error: without a sample, the ids may be of users with several rows each."""
    repeated = len(ids) - pc.count_distinct(ids).as_py()
    if repeated:
        say(f"{repeated:,} of {len(ids):,} rows repeat an earlier row's {name}: all are written")


def _refuse_repeated(ids: pa.Array, file: Path | None, name: str) -> None:
    counts = pc.value_counts(ids)
    repeated = pc.greater(counts.field("counts"), 1)
    if pc.any(repeated).as_py():
        value = counts.field("values").filter(repeated)[0].as_py()
        raise UserError(f"an id is repeated in {name}", file=file, value=value)
