"""Predictions in the sample submission's order and format, checked before they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray
from scipy.special import expit

from tossctr.data.encoding.ids import AmbiguousIdError, same_ids
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.inference.predict import Predictions


def write_submission(
    parts: Iterator[Predictions], output: Path, *, sample: Path | None, id_col: str
) -> int:
    """Write `ID,clicked` for each row of the sample submission, in its order.

    Ids and probabilities are held (about 20 bytes a row); rows and their features are not.

    Args:
        parts: predictions with ids.
        output: the CSV to write; it appears only when every check has passed.
        sample: the competition's sample file, which gives header and order; None writes the
            predictions in their own order under `id_col` and `clicked`.
        id_col: the id column of the scored file.

    Returns:
        The number of rows written.

    Raises:
        UserError: ids that are missing, unknown or repeated, a wrong row count, or a probability
            that is not a number from 0 to 1.
    """
    # The sample first: what is wrong with it is known before hours of scoring.
    header, wanted = ((id_col, "clicked"), None) if sample is None else _read_sample(sample)
    ids, probability = _collect(parts)
    _check_probabilities(ids, probability)
    if wanted is not None:
        assert sample is not None
        order = _match(wanted, ids, sample)
        ids, probability = wanted, probability[order]
    table = pa.table([ids, pa.array(probability)], names=list(header))
    # Arrow's "needed" quotes every text; the samples of competitions quote none.
    special = pc.any(pc.match_substring_regex(ids, '[",\r\n]')).as_py()
    options = pyarrow.csv.WriteOptions(
        quoting_style="needed" if special else "none", quoting_header="none"
    )
    with whole_file(output) as temporary:
        pyarrow.csv.write_csv(table, temporary, options)
    return len(table)


def _collect(parts: Iterator[Predictions]) -> tuple[pa.Array, NDArray[np.float64]]:
    ids: list[pa.Array] = []
    probabilities: list[NDArray[np.float64]] = []
    for part in parts:
        assert part.id is not None
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
            "the model's output is no probability",
            row=row,
            value=float(probability[row]),
            remedy=f"look at the input of id {ids[row].as_py()}",
        )


def _read_sample(sample: Path) -> tuple[tuple[str, str], pa.Array]:
    try:
        first = pyarrow.csv.open_csv(sample).schema.names
        table = pyarrow.csv.read_csv(
            sample,
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=first[:1], column_types={first[0]: pa.large_string()}
            ),
        )
    except FileNotFoundError as error:
        raise UserError(
            "the sample submission is not there",
            file=sample,
            remedy="give --sample, or leave it out of the data set's config",
        ) from error
    except (pa.ArrowInvalid, IndexError) as error:
        raise UserError(
            f"cannot be read as CSV: {error}", file=sample, remedy="give the original file"
        ) from error
    if len(first) != 2:
        raise UserError("a sample submission has two columns", file=sample, value=first)
    wanted = table.column(0).combine_chunks()
    _refuse_repeated(_same(wanted, sample), sample, "the sample submission")
    return (first[0], first[1]), wanted


def _match(wanted: pa.Array, ids: pa.Array, sample: Path) -> NDArray[np.int64]:
    """Where each wanted id stands among the predictions; '7', 7.0 and '7.0' are one id."""
    if len(wanted) != len(ids):
        raise UserError(
            f"{len(wanted):,} rows, but {len(ids):,} were scored",
            file=sample,
            remedy="score the test file that belongs to this sample",
        )
    keys = _same(ids, sample)
    _refuse_repeated(keys, sample, "the scored file")
    where = pc.index_in(_same(wanted, sample), value_set=keys)
    if where.null_count:
        value = wanted.filter(pc.is_null(where))[0].as_py()
        raise UserError(
            "an id that was not scored",
            file=sample,
            value=value,
            remedy="score the test file that belongs to this sample",
        )
    order: NDArray[np.int64] = where.to_numpy().astype(np.int64)
    return order


def _same(ids: pa.Array, sample: Path) -> pa.Array:
    try:
        return same_ids(ids)
    except AmbiguousIdError as error:
        raise UserError(
            "a float too large to be one id",
            file=sample,
            value=str(error),
            remedy="write the ids as integers or as text",
        ) from error


def _refuse_repeated(ids: pa.Array, sample: Path, name: str) -> None:
    counts = pc.value_counts(ids)
    repeated = pc.greater(counts.field("counts"), 1)
    if pc.any(repeated).as_py():
        value = counts.field("values").filter(repeated)[0].as_py()
        raise UserError(f"an id stands twice in {name}", file=sample, value=value)
