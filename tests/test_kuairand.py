"""KuaiRand's recipe: no history knows its own row or a later one; every model reads the files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from tossctr.config.entries import entry_ids
from tossctr.data.prepare import prepare
from tossctr.families.experiment import load_experiment
from tossctr.models import build_model

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = ("skip", "click", "long_view")
PARTS = ("train", "valid", "test")

Row = dict[str, int]


def rows_of(path: Path) -> list[Row]:
    parsing = pyarrow.csv.ParseOptions(delimiter="\t")
    return pyarrow.csv.read_csv(path, parse_options=parsing).to_pylist()


def convert(source: Path, folder: Path) -> dict[str, pa.Table]:
    script = ROOT / "scripts" / "kuairand.py"
    subprocess.run([sys.executable, script, source, folder], check=True, stdout=subprocess.DEVNULL)
    return {part: pq.read_table(folder / f"{part}.parquet") for part in PARTS}


@pytest.fixture(scope="module")
def tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 impressions of 6 users in no order, many at the same time."""
    rng = np.random.default_rng(5)
    n = 300
    long_view = rng.integers(0, 2, n)
    columns = {
        "user_id": rng.integers(1, 7, n),
        "video_id": rng.integers(1, 15, n),
        "date": np.full(n, 20220408),  # a column that is not needed
        "hourmin": rng.integers(0, 24, n) * 100,
        "time_ms": 1_649_346_288_441 + rng.integers(0, 120, n) * 7_001,
        "is_click": np.maximum(long_view, rng.integers(0, 2, n)),
        "long_view": long_view,
        "duration_ms": rng.integers(0, 2, n) * rng.integers(0, 90_000, n),
    }
    path = tmp_path_factory.mktemp("kuairand") / "kuairand.tsv"
    pyarrow.csv.write_csv(pa.table(columns), path, pyarrow.csv.WriteOptions(delimiter="\t"))
    return path


@pytest.fixture(scope="module")
def tables(tsv: Path) -> dict[str, pa.Table]:
    return convert(tsv, tsv.parent / "data" / "kuairand")


def check_histories(rows: list[Row], written: list[dict[str, object]]) -> None:
    """Every history against the rows themselves, by the definition."""
    by_user: dict[int, list[Row]] = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row)
    for row in written:
        before = [r for r in by_user[row["user_id"]] if r["time_ms"] / 1000 < row["time"]]
        expected = sorted(
            (r["time_ms"] / 1000, r["video_id"], OUTCOMES[max(2 * r["long_view"], r["is_click"])])
            for r in before
        )
        columns = (row[f"hist_{name}"] for name in ("time", "video_id", "outcome"))
        events = list(zip(*columns, strict=True))
        assert sorted(events) == expected
        assert row["hist_time"] == sorted(row["hist_time"])  # the newest is last
        assert len(row["hist_duration"]) == len(events)
        assert row["outcome"] == "unknown"


def test_a_history_is_what_came_strictly_before(tsv: Path, tables: dict[str, pa.Table]) -> None:
    rows = rows_of(tsv)
    for table in tables.values():
        check_histories(rows, table.to_pylist())
    moments = [(row["user_id"], row["time_ms"]) for row in rows]
    assert len(set(moments)) < len(moments)  # equal times do occur


def test_rows_are_split_by_time_and_none_is_lost(tsv: Path, tables: dict[str, pa.Table]) -> None:
    assert [len(tables[part]) for part in PARTS] == [240, 30, 30]
    times = np.concatenate([tables[part]["time"].to_numpy() for part in PARTS])
    assert (np.diff(times) >= 0).all()

    def keys(rows: list[Row], time: Callable[[Row], float]) -> list[tuple[float, ...]]:
        return sorted((time(r), r["user_id"], r["video_id"], r["long_view"]) for r in rows)

    written = [row for table in tables.values() for row in table.to_pylist()]
    assert keys(written, lambda r: r["time"]) == keys(rows_of(tsv), lambda r: r["time_ms"] / 1000)


def test_duration_counts_half_octaves_of_seconds(tmp_path: Path) -> None:
    names = ["user_id", "video_id", "hourmin", "is_click", "long_view"]
    durations = [0, 999, 1_001, 3_001, 15_001, 63_001]
    columns = {name: [1] * 6 for name in names}
    columns |= {"time_ms": list(range(6)), "duration_ms": durations}
    source = tmp_path / "six.tsv"
    pyarrow.csv.write_csv(pa.table(columns), source, pyarrow.csv.WriteOptions(delimiter="\t"))
    tables = convert(source, tmp_path / "out")
    found = [d for part in PARTS for d in tables[part]["duration"].to_pylist()]
    assert found == [0, 1, 2, 4, 8, 12]


def test_every_model_of_the_comparison_reads_it(tsv: Path, tables: dict[str, pa.Table]) -> None:
    project = tsv.parent
    data = [f"{part}_data={project / f'data/kuairand/{part}.parquet'}" for part in PARTS]
    overrides = [f"data_root={project / 'prepared'}", *data]
    prepared = None
    for expid in entry_ids(ROOT / "configs", "model_config"):
        if not expid.endswith("_kuairand") and not expid.startswith("ablation_"):
            continue
        experiment = load_experiment(ROOT / "configs", expid, overrides)
        prepared = prepared or prepare(experiment.dataset)
        features = prepared.encoder.features.with_lengths(experiment.dataset)
        model = build_model(experiment.model, features, experiment.hyperparameters, seed=1)
        batch = replace(prepared.valid, features=features).take(np.arange(30))
        logits = model(batch)
        assert logits.shape == (30,)
        assert torch.isfinite(logits).all()


def test_the_public_extract(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "kuairand.tsv"
    tables = convert(source, tmp_path)
    assert [len(tables[part]) for part in PARTS] == [33_462, 4_183, 4_183]
    rows = rows_of(source)
    some = np.random.default_rng(1).choice(4_183, 40, replace=False)
    check_histories(rows, tables["test"].take(some).to_pylist())
