"""Held-out predictions as Parquet: what calibration, blends and the leaderboard stand on.

One row a prediction: `row` (int64, its place in the store it comes from), `fold` (int16, out of
fold only), `label` (float32), `logit` (float64) and, where the run has a `group_id`, `group`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tossctr.errors import UserError
from tossctr.files import whole_file

VERSION = 1
_KEY = b"tossctr"


@dataclass(frozen=True)
class HeldOut:
    """Predictions of rows that their model was not trained on.

    Attributes:
        row: (N,) int64, rising.
        label: (N,) float32, 0 or 1.
        logit: (N,) float64.
        prior: share of clicks among the rows trained on.
        part: the store that `row` counts in: `train` (out of fold) or `valid`.
        fold: (N,) int16, the fold that each row was held out with; None for a validation part.
        group: (N,) the value of the run's `group_id`, or None.
    """

    row: NDArray[np.int64]
    label: NDArray[np.float32]
    logit: NDArray[np.float64]
    prior: float
    part: str = "valid"
    fold: NDArray[np.int16] | None = None
    group: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.row)


def write_held_out(path: Path, held: HeldOut) -> None:
    """Write the file whole.

    Raises:
        UserError: the disk refuses.
    """
    columns: dict[str, Any] = {"row": held.row, "label": held.label, "logit": held.logit}
    if held.fold is not None:
        columns["fold"] = held.fold
    if held.group is not None:
        columns["group"] = held.group
    about = json.dumps({"version": VERSION, "part": held.part, "prior": held.prior})
    table = pa.table(columns).replace_schema_metadata({_KEY: about})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_held_out(path: Path) -> HeldOut:
    """Read what `write_held_out` wrote.

    Raises:
        UserError: missing, damaged, or another file.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        about = json.loads(table.schema.metadata[_KEY])
        if about["version"] != VERSION:
            raise ValueError("another version")
        column = {name: table[name].to_numpy() for name in table.column_names}
        held = HeldOut(
            row=column["row"].astype(np.int64, copy=False),
            label=column["label"].astype(np.float32, copy=False),
            logit=column["logit"].astype(np.float64, copy=False),
            prior=float(about["prior"]),
            part=str(about["part"]),
            fold=column.get("fold"),
            group=column.get("group"),
        )
    except FileNotFoundError as error:
        raise UserError("no held-out predictions here", file=path, remedy="train again") from error
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "holds no held-out predictions of this version", file=path, remedy="train again"
        ) from error
    if not len(held) or not np.isfinite(held.logit).all() or not 0 < held.prior < 1:
        raise UserError("holds no usable predictions", file=path, remedy="train again")
    return held
