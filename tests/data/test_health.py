"""What `tossctr check` says of a file."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tossctr.commands.options import app, stdout
from tossctr.data.health.check import check
from tossctr.data.health.column import SAMPLE
from tossctr.data.health.table import health_table

N = 3000


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "_width", 200)  # its own setter cannot go back to the terminal's


def table(seed: int = 0, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    price = rng.lognormal(size=N) + shift
    price[::10] = np.nan
    hour = [None if i % 4 == 0 else f"{h:02d}" for i, h in enumerate(rng.integers(0, 24, N))]
    lengths = rng.integers(0, 9, N)
    seq = [",".join(map(str, rng.integers(1, 30 + int(9 * shift), n))) for n in lengths]
    return pa.table(
        {
            "hour": hour,
            "price": price,
            "seq": seq,
            "ids": [[1, 2]] * N,
            "same": np.ones(N, np.float32),
            "nothing": pa.nulls(N, pa.string()),
            "user": [f"u{i}" for i in range(N)],
        }
    )


@pytest.fixture(params=["parquet", "csv"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"train.{request.param}"
    if request.param == "csv":
        pyarrow.csv.write_csv(table().drop_columns(["ids"]), path)
    else:
        pq.write_table(table(), path, row_group_size=700)
    return path


def test_each_column_is_described(file: Path) -> None:
    found = check(file)
    raw = table()
    assert found.rows == N
    hour, price, seq = (found.columns[n] for n in ("hour", "price", "seq"))
    assert (hour.kind, hour.missing, hour.distinct) == ("texts", N // 4, 24)
    assert (price.kind, price.missing) == ("numbers", N // 10)
    values = raw["price"].to_numpy()
    expected = np.nanquantile(values, [0, 0.05, 0.5, 0.95, 1])
    np.testing.assert_allclose(list(price.quantiles().values()), expected, rtol=1e-12)
    assert list(price.quantiles()) == ["min", "5 %", "median", "95 %", "max"]
    lengths = [len(t.split(",")) if t else 0 for t in raw["seq"].to_pylist()]
    assert (seq.kind, seq.splitter, seq.missing) == ("sequences", ",", lengths.count(0))
    assert (seq.quantiles()["min"], seq.quantiles()["max"]) == (0, 8)
    tokens = {t for text in raw["seq"].to_pylist() if text for t in text.split(",")}
    assert seq.distinct == len(tokens)
    assert found.columns["nothing"].problems == ["no value at all"]
    assert found.columns["same"].problems == ["one value only"]
    json.loads(json.dumps(found.as_dict(), allow_nan=False))


def test_drift_is_distinguished_from_sampling_noise(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for path, raw in zip(paths, [table(0), table(1), table(2, shift=2.0)], strict=True):
        pq.write_table(raw, path)
    alike, apart = check(paths[0], paths[1]).drift, check(paths[0], paths[2]).drift
    for name in ("hour", "price", "seq"):
        assert alike[name] is not None
        assert alike[name] < 0.1
    for name in ("price", "seq"):
        assert apart[name] > 0.25
    assert apart["hour"] < 0.1
    assert apart["user"] is None  # every row its own: no share to compare
    assert apart["same"] == 0


def test_columns_of_one_file_only(tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(table().drop_columns(["hour"]), a)
    pq.write_table(table().drop_columns(["price"]), b)
    found = check(a, b)
    assert (found.only_here, found.only_there) == (("price",), ("hour",))


def test_what_prepare_would_refuse_is_named(tmp_path: Path) -> None:
    raw = pa.table({"seq": ["1,2", "[3,4", "5,6"], "x": [1.0, np.inf, 2.0]})
    pq.write_table(raw, tmp_path / "t.parquet")
    columns = check(tmp_path / "t.parquet").columns
    assert "1 that prepare refuses" in columns["seq"].problems[0]
    assert "row 1" in columns["seq"].problems[0]
    assert "1 infinite" in columns["x"].problems[0]


def frame() -> pd.DataFrame:
    """Many rows, so that quantiles are of a sample; one bad cell, and 15."""
    rng = np.random.default_rng(5)
    rows = 90_000
    values = rng.normal(50, 20, rows)
    some = rng.random(rows) < 0.05
    one, fifteen = values.round(3).astype(str), values.round(2).astype(str)
    one[70_001] = "none"
    fifteen[::6000] = "oops"
    return pd.DataFrame(
        {
            "clicked": (rng.random(rows) < 0.0306).astype(int),
            "flag": rng.random(rows) < 0.4,
            "age": np.where(some, np.nan, rng.integers(18, 70, rows)),
            "turns": np.arange(rows) % 7,  # a sample of every so many-th row would mistake it
            "price": np.where(some, np.nan, values),
            "hour": [f"{h:02d}" for h in rng.integers(0, 24, rows)],
            "one": one,
            "fifteen": fifteen,
        }
    )


@pytest.fixture(scope="module", params=["csv", "parquet"])
def frames(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pd.DataFrame, Path]:
    path, raw = tmp_path_factory.mktemp("frames") / f"rows.{request.param}", frame()
    if request.param == "csv":
        raw.to_csv(path, index=False)
    else:
        for name in ("one", "fifteen"):
            raw[name] = pd.to_numeric(raw[name], errors="coerce")
        raw.to_parquet(path)
    return raw, path


def test_every_number_is_that_of_pandas(frames: tuple[pd.DataFrame, Path]) -> None:
    raw, path = frames
    found = check(path)
    assert found.rows == len(raw)
    untyped = path.suffix == ".csv"
    if untyped:
        kinds = {name: column.type for name, column in found.columns.items()}
        assert kinds == {
            "clicked": "int", "flag": "bool", "age": "int", "turns": "int", "price": "float",
            "hour": "str", "one": "float", "fifteen": "float",
        }  # fmt: skip
    for name in raw:
        column = found.columns[name]
        if name == "hour":
            counts = raw[name].value_counts()
            assert column.kind == "texts"
            assert column.distinct == raw[name].nunique()
            assert dict(column.counts) == counts.to_dict()
            continue
        values = pd.to_numeric(raw[name], errors="coerce").astype(float)
        bad = int(values.isna().sum() - raw[name].isna().sum())
        assert column.kind == "numbers"
        assert (column.missing, column.invalid) == (values.isna().sum() - bad, bad)
        assert column.mean == pytest.approx(values.mean(), rel=1e-12)
        quantiles = column.quantiles()
        assert (quantiles["min"], quantiles["max"]) == (values.min(), values.max())
        for label, level in (("5 %", 0.05), ("median", 0.5), ("95 %", 0.95)):
            assert values.quantile(level - 0.012) <= quantiles[label]
            assert quantiles[label] <= values.quantile(level + 0.012)
        if values.nunique() <= 50_000:
            assert (column.distinct, column.distinct_more) == (values.nunique(), False)
        else:
            assert column.distinct_more
    rate = found.columns["clicked"].share_of_ones
    assert rate == pytest.approx(raw["clicked"].mean(), rel=1e-12)
    assert found.columns["flag"].share_of_ones == pytest.approx(raw["flag"].mean(), rel=1e-12)
    assert found.columns["turns"].share_of_ones is None
    if untyped:
        assert found.columns["one"].invalid == 1
        assert found.columns["fifteen"].invalid == 15
        problem = "1 that prepare refuses, the first "
        assert problem in found.columns["one"].problems[0]
        assert "row 70001: not a number (found 'none')" in found.columns["one"].problems[0]
        assert "row 0: not a number (found 'oops')" in found.columns["fifteen"].problems[0]


def test_quantiles_are_exact_until_there_are_many_rows(tmp_path: Path) -> None:
    values = pd.Series(np.random.default_rng(1).lognormal(size=2 * SAMPLE))
    pq.write_table(pa.table({"x": values}), tmp_path / "rows.parquet")
    column = check(tmp_path / "rows.parquet").columns["x"]
    assert column.as_dict()["quantiles_are_exact"] is True
    for label, level in (("5 %", 0.05), ("median", 0.5), ("95 %", 0.95)):
        assert column.quantiles()[label] == pytest.approx(values.quantile(level), rel=1e-12)


def test_one_bad_sequence_does_not_invalidate_other_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 5, 9000)
    rows = [",".join(map(str, rng.integers(1, 9, n))) for n in lengths]
    for at in (17, 5000, 5001):
        rows[at] = "[1,2"
    pq.write_table(pa.table({"seq": rows}), tmp_path / "rows.parquet")
    column = check(tmp_path / "rows.parquet").columns["seq"]
    kept = np.delete(lengths, [17, 5000, 5001])
    events = [e for i, row in enumerate(rows) if row and i not in (17, 5000, 5001)
              for e in row.split(",")]  # fmt: skip
    assert column.invalid == 3
    assert column.missing == (kept == 0).sum()
    assert column.mean == pytest.approx(kept.mean(), rel=1e-12)
    assert column.quantiles()["median"] == np.median(kept)
    assert dict(column.counts) == pd.Series(events).value_counts().to_dict()
    assert "3 that prepare refuses" in column.problems[0]
    assert "row 17" in column.problems[0]


@pytest.mark.usefixtures("wide")
def test_a_column_that_no_feature_has_does_not_stop_the_rest(tmp_path: Path) -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)
    others = {
        "struct": [{"a": 1}, None, {"a": 2}],
        "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "nested": [[[1]], None, [[2]]],
        "bytes": pa.array([b"\xff\xfe", None, b"\x80"]),
        "late bytes": pa.array([b"text", b"text", b"\xff"]),
    }
    read = {
        "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        "duration": pa.array([1000, None, 3000], pa.duration("ms")),
        "time": [dt.time(1), None, dt.time(2)],
        "uuid": pa.array([bytes(16), None, bytes(range(16))], pa.uuid()),
        "view": pa.array(["a", None, "b"], pa.string_view()),
        "ns": pa.array([1767323045678901234, None, 1], pa.timestamp("ns")),
        "moment": [moment, None, moment],
        "day": [moment.date(), None, dt.date(2025, 1, 1)],
        "null": pa.nulls(3),
        "decimal": [Decimal("1.5"), None, Decimal("2.5")],
    }
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({**others, **read, "x": [1.0, 2.0, 4.0]}), path, row_group_size=2)
    found = check(path)
    assert found.columns["x"].mean == pytest.approx(7 / 3)
    for name in others:
        column = found.columns[name]
        assert (column.kind, column.rows) == ("other", 3)
        assert column.missing == (name != "late bytes")
        assert "no feature has this type" in column.problems[0]
    kinds = {"fixed": "sequences", "uuid": "texts", "view": "texts", "ns": "times",
             "moment": "times", "day": "times"}  # fmt: skip
    for name in read:
        column = found.columns[name]
        assert column.kind == kinds.get(name, "numbers" if name != "null" else column.kind)
        assert column.missing == (1 if name != "null" else 3)
    assert found.columns["duration"].quantiles()["max"] == 3.0
    json.dumps(found.as_dict(), allow_nan=False)
    shown = CliRunner().invoke(app, ["check", str(path)])
    assert shown.exit_code == 0
    assert "2026-01-02 03:04:05" in " ".join(shown.output.split())


def test_a_column_without_any_value_in_one_file_has_drifted(tmp_path: Path) -> None:
    for name, values in (("a", ["x", "y"] * 50), ("b", [None] * 100)):
        pq.write_table(pa.table({"c": pa.array(values, pa.string())}), tmp_path / f"{name}.parquet")
    drift = check(tmp_path / "a.parquet", tmp_path / "b.parquet").drift["c"]
    assert drift is not None
    assert drift > 1


@pytest.mark.usefixtures("wide")
def test_the_command_prints_a_table_or_json(file: Path) -> None:
    shown = CliRunner().invoke(app, ["check", str(file), "--against", str(file)])
    assert shown.exit_code == 0
    assert "one value only" in " ".join(shown.output.split())
    done = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == N


@pytest.mark.usefixtures("wide")
def test_the_table_names_its_quantiles_and_the_click_rate(tmp_path: Path) -> None:
    clicked = np.arange(1000) % 40 == 0
    pq.write_table(
        pa.table({"clicked": clicked, "x": np.arange(1000) / 10}), tmp_path / "t.parquet"
    )
    shown = CliRunner().invoke(app, ["check", str(tmp_path / "t.parquet")])
    text = " ".join(shown.output.split())
    assert "0 and 1: 2.5 % are 1" in text
    assert "min 0, 5 % 4.995, median 49.95, 95 % 94.905, max 99.9; 1,000 distinct" in text


def test_large_ids_are_shown_in_full_and_times_name_their_zone(tmp_path: Path) -> None:
    ids = 10_000_000_000 + np.arange(101)
    moments = pd.date_range("2026-01-01 00:00", periods=101, freq="min", tz="Asia/Seoul")
    raw = pd.DataFrame({"user": ids, "at": moments, "local": moments.tz_localize(None)})
    raw.to_parquet(tmp_path / "t.parquet")
    wide = Console(width=300, record=True, file=io.StringIO())
    wide.print(health_table(check(tmp_path / "t.parquet")))
    text = wide.export_text()
    whole = [int(v) for v in raw["user"].quantile([0, 0.05, 0.5, 0.95, 1])]
    names = ["min", "5 %", "median", "95 %", "max"]
    assert ", ".join(f"{n} {v}" for n, v in zip(names, whole, strict=True)) in text
    last = raw["at"].max().tz_convert("UTC")
    assert f"max {last:%Y-%m-%d %H:%M:%S} (UTC); 101 distinct" in text
    assert f"max {raw['local'].max():%Y-%m-%d %H:%M:%S}; 101 distinct" in text
