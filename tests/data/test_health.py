"""What `tossctr check` says of a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tossctr.commands.options import app
from tossctr.data.health import SAMPLE, Sample, check

N = 3000


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
    np.testing.assert_allclose(price.quantiles(), expected, rtol=1e-12)
    lengths = [len(t.split(",")) if t else 0 for t in raw["seq"].to_pylist()]
    assert (seq.kind, seq.splitter, seq.missing) == ("sequences", ",", lengths.count(0))
    assert seq.quantiles()[0::4] == [0, 8]
    tokens = {t for text in raw["seq"].to_pylist() if text for t in text.split(",")}
    assert seq.distinct == len(tokens)
    assert found.columns["nothing"].problems == ["no value at all"]
    assert found.columns["same"].problems == ["one value only"]
    json.loads(json.dumps(found.as_dict(), allow_nan=False))


def test_drift_is_told_from_chance(tmp_path: Path) -> None:
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
    raw = pa.table({"seq": ["1,2", "3,,4", "5,6"], "x": [1.0, np.inf, 2.0]})
    pq.write_table(raw, tmp_path / "t.parquet")
    columns = check(tmp_path / "t.parquet").columns
    assert "row 1" in columns["seq"].problems[0]
    assert "1 infinite" in columns["x"].problems[0]


def test_a_sample_is_evenly_spaced_however_it_comes() -> None:
    n = 7 * SAMPLE + 13
    for cut in (n, 4096, 999):
        sample = Sample()
        for start in range(0, n, cut):
            sample.add(np.arange(start, min(start + cut, n)))
        steps = np.diff(sample.values)
        assert SAMPLE <= len(sample.values) <= 2 * SAMPLE
        assert sample.values[0] == 0
        assert (steps == steps[0]).all()


def test_the_command_prints_a_table_or_json(file: Path) -> None:
    shown = CliRunner().invoke(app, ["check", str(file), "--against", str(file)])
    assert shown.exit_code == 0
    assert "one value only" in " ".join(shown.output.split())
    done = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == N
