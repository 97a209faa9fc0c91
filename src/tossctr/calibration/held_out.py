"""Held-out predictions as Parquet, for calibration, blends and the leaderboard.

One row per prediction: `row` (int64, its index in the store of its split), `label` (float32),
`logit` (float64), `fold` (int16, only out of fold) and `group` (if the run has a `group_id`).
Columns are neither encoded nor compressed, so the file size bounds the number of rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from tossctr.artefact import HELD_OUT_BYTES, Artefact, Sha256, first_problem, opened
from tossctr.errors import UserError
from tossctr.files import whole_file

VALIDATION = "validation.parquet"  # of a run
OUT_OF_FOLD = "oof.parquet"  # of folds or of a blend
AGAIN = "train again"
LARGEST_LOGIT = 1e9  # far beyond any model's; sums of squares stay finite
MAX_FOLDS = 1_000
_KEY = b"tossctr"
_TYPES = {"row": pa.int64(), "label": pa.float32(), "logit": pa.float64(), "fold": pa.int16()}
_ABOUT_BYTES = 4096


@dataclass(frozen=True)
class HeldOut:
    """Predictions of rows that their model was not trained on.

    Attributes:
        row: (N,) int64, ascending.
        label: (N,) float32, 0 or 1.
        logit: (N,) float64.
        prior: share of clicks among the rows trained on.
        split: of the rows: `train` (out of fold) or `valid`.
        fold: (N,) int16, the fold in which each row was held out; None for the validation split.
        group: (N,) the value of the run's `group_id`, or None.
        run: SHA-256 of the `run.json` of the run that predicted; None if there were several.
    """

    row: NDArray[np.int64]
    label: NDArray[np.float32]
    logit: NDArray[np.float64]
    prior: float
    split: Literal["train", "valid"] = "valid"
    fold: NDArray[np.int16] | None = None
    group: NDArray[Any] | None = None
    run: str | None = None

    def __len__(self) -> int:
        return len(self.row)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays that are not None, by name."""
        found = {"row": self.row, "label": self.label, "logit": self.logit}
        if self.fold is not None:
            found["fold"] = self.fold
        if self.group is not None:
            found["group"] = self.group
        return {name: np.ascontiguousarray(values) for name, values in found.items()}


class _About(Artefact):
    """The file's metadata; `part` is the split, `sha256` the digest of the columns."""

    version: Literal[2]
    part: Literal["train", "valid"]
    prior: Annotated[float, Field(gt=0, lt=1)]
    run: Sha256 | None
    sha256: Sha256


def write_held_out(path: Path, held: HeldOut) -> None:
    """Write the file atomically.

    Raises:
        UserError: it cannot be written.
    """
    columns = held.columns()
    about = _About(
        version=2, part=held.split, prior=held.prior, run=held.run, sha256=columns_digest(columns)
    )
    table = pa.table(columns).replace_schema_metadata({_KEY: about.model_dump_json()})
    with whole_file(path) as temporary:
        pq.write_table(
            table, temporary, compression="none", use_dictionary=False, write_page_checksum=True
        )


def read_held_out(path: Path) -> HeldOut:
    """Read what `write_held_out` wrote.

    Raises:
        UserError: missing, damaged, or another file; labels that are not 0 or 1, logits that are
            not finite, rows that are not ascending.
    """
    with opened(path, limit=HELD_OUT_BYTES, remedy=AGAIN) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            found = parquet.schema_arrow
            _check_types(found)
            width = sum(field.type.bit_width // 8 for field in found)
            if parquet.metadata.num_rows * width > size:
                raise ValueError("more rows than fit its size")
            metadata = (found.metadata or {}).get(_KEY, b"")[:_ABOUT_BYTES]
            about = _About.model_validate_json(metadata)
            table = parquet.read()
            column = {name: table[name].to_numpy() for name in table.column_names}
        except ValidationError as error:
            raise _damaged(path, first_problem(error)) from error
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise _damaged(path, str(error).splitlines()[0][:100] if str(error) else "") from error
    held = HeldOut(**column, prior=about.prior, split=about.part, run=about.run)
    if columns_digest(held.columns()) != about.sha256:
        raise _damaged(path, "its content has changed since it was written")
    _check_values(path, held)
    return held


def _check_types(schema: pa.Schema) -> None:
    if len(set(schema.names)) != len(schema.names) or not {"row", "label", "logit"} <= set(
        schema.names
    ):
        raise ValueError("unexpected columns")
    for field in schema:
        of_group = field.name == "group" and pa.types.is_integer(field.type)
        if not of_group and field.type != _TYPES.get(field.name):
            raise ValueError(f"column {field.name} has another type")


def _check_values(path: Path, held: HeldOut) -> None:
    label = held.label
    problem = None
    if not len(held):
        problem = "it has no rows"
    elif not (np.abs(held.logit) <= LARGEST_LOGIT).all():  # False for NaN
        problem = "a logit is not finite"
    elif not ((label == 0) | (label == 1)).all():  # False for NaN
        problem = "a label is not 0 or 1"
    elif held.row[0] < 0 or not (np.diff(held.row) > 0).all():
        problem = "its rows are not ascending"
    elif held.fold is not None and not _are_folds(held.fold):
        problem = "its folds are not numbered from 0"
    if problem is not None:
        raise _damaged(path, problem)


def _are_folds(fold: NDArray[np.int16]) -> bool:
    return bool(fold.min() == 0 and fold.max() < MAX_FOLDS and np.bincount(fold).all())


def columns_digest(columns: dict[str, NDArray[Any]]) -> str:
    """SHA-256 of names, types and values."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        digest.update(f"{name} {values.dtype} {len(values)}".encode())
        digest.update(values.view(np.uint8).data if len(values) else b"")
    return digest.hexdigest()


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(
        f"holds no held-out predictions of this version: {problem}", file=path, remedy=AGAIN
    )
