"""Data set `tossctr_full` on synthetic raw files, for the benchmarks of `prepare`."""

from __future__ import annotations

from pathlib import Path

import harness
import pyarrow as pa
import pyarrow.parquet as pq

from tossctr.config.schema import DatasetConfig
from tossctr.families.experiment import load_dataset

FILES = 24


def full_dataset(train_data: Path, root: Path, **changes: object) -> DatasetConfig:
    """`tossctr_full` with another training file and another folder for the prepared data."""
    full = load_dataset(harness.CONFIGS, "tossctr_full")
    return full.model_copy(update={"train_data": train_data, "data_root": root, **changes})


def write_files(table: pa.Table, folder: Path) -> Path:
    """Write the table as a folder of `FILES` parquet files."""
    folder.mkdir()
    for number in range(FILES):
        start, end = (len(table) * n // FILES for n in (number, number + 1))
        pq.write_table(table.slice(start, end - start), folder / f"{number:04d}.parquet")
    return folder


def store_content(folder: Path) -> dict[str, bytes]:
    """Content of all files of a prepared data set that must be reproducible, by path."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "prepare.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
