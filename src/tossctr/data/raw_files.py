"""Make synthetic raw files if those of a data set are missing."""

from __future__ import annotations

import difflib
from pathlib import Path

from tossctr.config.schema import DatasetConfig
from tossctr.data import schema
from tossctr.data.encoding.fields import field_encodings
from tossctr.data.synthetic import SyntheticFiles, may_hold_synthetic, synthesize
from tossctr.errors import UserError
from tossctr.location import Location, exists
from tossctr.progress import say


def ensure_raw_files(dataset: DatasetConfig, *, seed: int, train_rows: int, test_rows: int) -> bool:
    """Make synthetic raw files if files are missing and `synthesize` writes exactly those, in a
    folder that is empty or that it made.

    Returns:
        Whether it did.

    Raises:
        UserError: a raw file is missing in any other case.
    """
    missing = [path for path in dataset.files if not exists(path)]
    if not missing:
        return False
    folder = _synthetic_folder(dataset)
    if folder is None:
        raise UserError("does not exist", file=missing[0], remedy=_near(missing[0]))
    say(f"no raw files in {folder}: making {train_rows:,} + {test_rows:,} synthetic rows")
    synthesize(folder, train_rows, test_rows, seed=seed)
    return True


def _synthetic_folder(dataset: DatasetConfig) -> Path | None:
    """The folder in which synthetic files are exactly those of the data set, and replace
    nothing."""
    train = dataset.train_data
    if not isinstance(train, Path):
        return None
    files = SyntheticFiles.of(train.parent)
    named = (dataset.test_data or files.test, dataset.sample_submission or files.sample_submission)
    columns = {column.name for column in field_encodings(dataset)} | {dataset.label_col.name}
    fits = (
        train == files.train
        and dataset.valid_data is None
        and named == (files.test, files.sample_submission)
        and columns <= {*schema.TRAIN_SCHEMA.names}
        and dataset.id_col in (None, schema.ID)
    )
    return train.parent if fits and may_hold_synthetic(train.parent) else None


def _near(path: Location) -> str:
    """The remedy for a missing file."""
    if not isinstance(path, Path) or not path.parent.is_dir():
        return "put it there, or correct the path in the data set's config"
    names = [other.name for other in path.parent.iterdir() if not other.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "put it there, or correct its name in the config"
