"""Small raw files and data sets for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tossctr.config.schema import DatasetConfig, FeatureConfig, LabelSpec


def feature(name: str, type: str, dtype: str, **options: Any) -> FeatureConfig:
    if type == "sequence":
        options.setdefault("splitter", ",")
    return FeatureConfig(name=name, type=type, dtype=dtype, **options)  # type: ignore[arg-type]


def dataset(root: Path, train: Path, *features: FeatureConfig, **options: Any) -> DatasetConfig:
    return DatasetConfig(
        dataset_id="ds",
        data_root=root,
        train_data=train,
        label_col=LabelSpec(name="clicked"),
        feature_cols=features,
        **options,
    )


FEATURES = (
    feature("hour", "categorical", "str"),
    feature("seq", "sequence", "str"),
    feature("score", "numeric", "float", normalizer="MinMaxScaler"),
    feature("spread", "numeric", "float", normalizer="StandardScaler"),
    feature("prices", "sequence", "float"),
    feature("at", "time", "float"),
    feature("times", "time", "float", splitter=","),
    feature("user", "meta", "int"),
)


def raw_table(rows: int, seed: int = 0, mean_length: int = 5, large: bool = False) -> pa.Table:
    """Every kind of column, with missing values in each that may have some."""
    rng = np.random.default_rng(seed)
    lengths = rng.poisson(mean_length, rows)
    ids = [",".join(map(str, rng.integers(1, 40, n))) for n in lengths]
    some = rng.random((5, rows)) < 0.1
    floats = rng.normal(size=(2, rows)).astype(np.float32)
    floats[0, some[0]] = np.nan
    text = pa.large_string() if large else pa.string()
    prices = [",".join(f"{x:.3f}" for x in rng.random(n)) for n in lengths]
    times = [",".join(str(1000 + x) for x in range(n)) for n in lengths]
    return pa.table(
        {
            "hour": pa.array([f"{h:02d}" for h in rng.integers(0, 24, rows)], text, mask=some[1]),
            "seq": pa.array(ids, text, mask=some[2]),
            "score": pa.array(floats[0]),
            "spread": pa.array(floats[1], mask=some[3]),
            "prices": pa.array(prices, text, mask=some[4]),
            "at": pa.array(1e9 + np.arange(rows)),
            "times": pa.array(times, text),
            "user": pa.array(rng.integers(0, 9, rows)),
            "clicked": pa.array((np.arange(rows) % 3 == 0).astype(np.int32)),
        }
    )


def write(table: pa.Table, path: Path, row_group_size: int | None = None) -> Path:
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
