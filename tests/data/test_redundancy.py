"""Constant and duplicate columns are found while streaming, and dropped."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tossctr.config.schema import DatasetConfig
from tossctr.data.encoder import Encoder
from tossctr.data.encoding.statistics import Stats
from tossctr.data.prepare import prepare

NAMES = ["same", "a", "b", "like_a", "filled_a", "like_filled_a", "almost_a", "zero_or_null",
         "colour", "one_colour", "like_colour", "null"]  # fmt: skip


def table(rows=500):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, rows).astype(np.float32)
    a[::7] = np.nan
    almost = np.nan_to_num(a)
    almost[0] += 1
    colour = rng.choice(["red", "green"], rows)
    return pa.table(
        {
            "same": np.full(rows, 3.5, np.float32),
            "a": pa.array(a, from_pandas=True),
            "b": np.where(np.nan_to_num(a) == 4, 1.0, 0.0),
            "like_a": pa.array(a.astype(np.float64), from_pandas=True),  # of another type
            "filled_a": pa.array(a, from_pandas=True),  # by fill_na
            "like_filled_a": np.nan_to_num(a).astype(np.float64),
            "almost_a": almost,
            "zero_or_null": pa.array(a * 0, from_pandas=True),  # trees distinguish the two
            "colour": colour,
            "one_colour": np.full(rows, "red"),
            "like_colour": colour.copy(),
            "null": pa.nulls(rows, pa.float32()),
            "y": (rng.random(rows) < 0.4).astype(np.int32),
        }
    )


def dataset(folder, **keys):
    texts = {"colour", "one_colour", "like_colour"}
    return DatasetConfig(
        dataset_id="d",
        data_root=folder,
        train_data=folder / "train.parquet",
        label_col={"name": "y"},
        feature_cols=[
            {"name": n, "type": "categorical", "dtype": "str"} if n in texts
            else {"name": n, "type": "numeric", "dtype": "float", "normalizer": "MinMaxScaler",
                  "fill_na": 0 if n == "filled_a" else None}
            for n in NAMES
        ],
        **keys,
    )  # fmt: skip


@pytest.mark.parametrize("drop", [False, True])
def test_prepare_drops_them_with_a_message(tmp_path, capsys, drop):
    pq.write_table(table(), tmp_path / "train.parquet", row_group_size=60)
    prepared = prepare(dataset(tmp_path, drop_redundant=drop), batch_rows=37)
    kept = [f.name for f in prepared.encoder.features.fields]
    printed = capsys.readouterr().err
    if not drop:
        assert kept == NAMES
        assert "dropped" not in printed
        return
    assert kept == ["a", "b", "filled_a", "almost_a", "zero_or_null", "colour"]
    assert "dropped constant columns: same, one_colour, null" in printed
    assert "dropped like_a, which equals a" in printed
    assert "dropped like_filled_a, which equals filled_a" in printed
    assert "dropped like_colour, which equals colour" in printed
    assert prepared.train.numeric.shape[1] == 5
    assert list(prepared.encoder.columns(labelled=False)) == kept  # nor read from a test file
    assert prepared.encoder.hash == Encoder.load(prepared.folder).hash


def test_a_duplicate_column_whose_embedding_is_shared_is_kept(tmp_path):
    config = dataset(tmp_path, drop_redundant=True)
    cols = [
        f.model_copy(update={"share_embedding": "colour"}) if f.name == "like_colour" else f
        for f in config.feature_cols
    ]
    config = config.model_copy(update={"feature_cols": tuple(cols)})
    kept = [f.name for f in Encoder.fit(config, table().to_batches()).features.fields]
    assert {"colour", "like_colour"} <= set(kept)


def test_parts_merge_in_any_order(tmp_path):
    config = dataset(tmp_path, drop_redundant=True)
    batch = table().combine_chunks().to_batches()[0]
    whole = Stats.of(config)
    whole.update(batch)
    parts = []
    for start in (400, 0, 130):
        stop = {0: 130, 130: 400, 400: 500}[start]
        part = whole.like()
        part.update(batch.slice(start, stop - start), rows=np.arange(start, stop))
        parts.append(part)
    total = Stats.of(config)
    for part in parts:
        total.merge(part)
    assert total.hashes == whole.hashes
