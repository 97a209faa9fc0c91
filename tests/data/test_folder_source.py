"""A folder of parquet files, here or in an object store, is read as one long file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from frames import FEATURES, dataset, feature, raw_table, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tossctr.config.schema import DatasetConfig, ValidSplit
from tossctr.data.health.check import check
from tossctr.data.prepare import prepare
from tossctr.data.preparing.fingerprint import Inputs
from tossctr.data.sources.files import files_in
from tossctr.data.sources.opening import open_source
from tossctr.data.where import Files, Where
from tossctr.errors import UserError
from tossctr.location import located

TABLE = raw_table(300, seed=8)
URL = "memory://bucket/rows"


def parts_of(table: pa.Table, cuts: list[int]) -> list[pa.Table]:
    return [table.slice(a, b - a) for a, b in pairwise([0, *sorted(cuts), len(table)])]


def folder_of(root: Path, parts: list[pa.Table]) -> Path:
    root.mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        write(part, root / f"part-{number:03d}.parquet", row_group_size=40)
    return root


@pytest.fixture
def store() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def put(system: Any, url: str, table: pa.Table) -> None:
    with system.open(url, "wb") as file:
        pq.write_table(table, file)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "prepare.json"
    }


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    start=st.integers(0, 70),
    length=st.none() | st.integers(0, 70),
    batch_rows=st.integers(1, 40),
)
def test_any_range_of_files_of_any_size_gives_those_rows(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    start: int,
    length: int | None,
    batch_rows: int,
) -> None:
    table = TABLE.slice(0, 60).append_column("row", pa.array(range(60)))
    folder = folder_of(tmp_path_factory.mktemp("some"), parts_of(table, cuts))
    source = open_source(folder, {"row": "int", "hour": "str"})
    assert source.num_rows == source.count_rows() == 60
    assert source.ends is not None
    assert source.ends[-1] == 60
    stop = None if length is None else start + length
    batches = list(source.batches(start=start, stop=stop, batch_rows=batch_rows))
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    expected = table.select(["row", "hour"]).slice(start, length).to_pydict()
    for name in ("row", "hour"):
        assert [v for b in batches for v in b.column(name).to_pylist()] == expected[name]
    # An error names the file that really holds the row, and the row's place there.
    for row in range(60):
        error = Where(0, source.file).error("odd", "row", row, None)
        assert error.row is not None
        assert pq.read_table(error.file)["row"][error.row].as_py() == row


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_the_store_of_a_folder_is_that_of_the_joined_file(tmp_path: Path, method: str) -> None:
    split: Any = ValidSplit(method=method, fraction=0.2)  # type: ignore[arg-type]
    whole = write(TABLE, tmp_path / "train.parquet")
    folder = folder_of(tmp_path / "raw", parts_of(TABLE, [0, 17, 17, 290]))
    stores = [
        content(prepare(dataset(tmp_path / str(i), raw, *FEATURES, valid_split=split)).folder)
        for i, raw in enumerate((whole, folder))
    ]
    assert stores[0] == stores[1]


def test_names_give_the_order_and_engines_own_files_are_left_out(tmp_path: Path) -> None:
    parts = parts_of(TABLE, [100, 200])
    for name, part in zip(("b/0.parquet", "a.parquet", "c.snappy.parquet"), parts, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(part, tmp_path / name)
    for name in ("_SUCCESS", ".hidden.parquet", "notes.txt", "_delta/x.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not rows")
    rows = [b.column(0) for b in open_source(tmp_path, {"at": "float"}).batches()]
    expected = pa.concat_tables([parts[1], parts[0], parts[2]])["at"]
    assert pa.chunked_array(rows).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("here", [True, False])
def test_numbers_in_names_count_by_their_value(tmp_path: Path, store: Any, here: bool) -> None:
    names = ["day2/part-2", "day2/part-10", "day2-b/part-1", "day10/part-1", "part-9", "x1-2"]
    names.insert(5, "part")
    for row, name in enumerate(names):
        part = pa.table({"row": [row]})
        if here:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            pq.write_table(part, tmp_path / f"{name}.parquet")
        else:
            put(store, f"{URL}/{name}.parquet", part)
    source = open_source(tmp_path if here else URL, {"row": "int"})
    assert [r for b in source.batches() for r in b.column("row").to_pylist()] == list(range(7))


def test_the_time_split_takes_the_newest_files_and_prints_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(12):
        write(TABLE.slice(25 * number, 25), folder / f"part-{number}.parquet")
    data = dataset(tmp_path, folder, *FEATURES, valid_split=ValidSplit(fraction=0.1))
    assert prepare(data).valid.times[:, 0].min() == 1e9 + 270
    said = " ".join(capsys.readouterr().err.split())
    assert "raw: 12 files, read in this order: part-0.parquet, part-1.parquet, ..., " in said
    assert "part-10.parquet, part-11.parquet" in said
    assert "older than a row above it" not in said
    check(folder)
    assert "raw: 12 files, read in this order: part-0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("rows", [7, 4096])
def test_a_time_split_of_unordered_rows_prints_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    at = TABLE["at"].to_pylist()
    at = [*at[:100], None, *at[101:200], *at[10:110]]  # the second file begins at row 200
    table = TABLE.set_column(TABLE.column_names.index("at"), "at", pa.array(at, pa.float64()))
    folder = folder_of(tmp_path / "raw", parts_of(table, [200]))
    before = np.maximum.accumulate([-np.inf, *(-np.inf if t is None else t for t in at)])
    older = sum(t is not None and t < b for t, b in zip(at, before[:-1], strict=True))
    prepare(dataset(tmp_path, folder, *FEATURES), batch_rows=rows)
    said = " ".join(capsys.readouterr().err.split())
    assert f"part-001.parquet, column at, row 0: older than a row above it, as are {older}" in said
    split: Any = ValidSplit(method="random", fraction=0.1)
    prepare(dataset(tmp_path / "other", folder, *FEATURES, valid_split=split))
    assert "older than" not in capsys.readouterr().err


def test_types_that_differ_from_file_to_file_are_joined_or_named(tmp_path: Path) -> None:
    small, large = pa.table({"x": pa.array([1], pa.int8())}), pa.table({"x": pa.array([2**40])})
    folder_of(tmp_path, [small, large, pa.table({"x": pa.nulls(1)})])
    table = pa.Table.from_batches(open_source(tmp_path).batches())
    assert table.to_pydict() == {"x": [1, 2**40, None]}
    write(pa.table({"x": [[1]]}), tmp_path / "part-009.parquet")
    with pytest.raises(UserError, match=r"part-009\.parquet, column x: holds list"):
        list(open_source(tmp_path).batches())


def test_a_file_without_the_column_a_damaged_one_and_a_bad_value_are_named(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path / "raw", parts_of(TABLE, [100, 200]))
    third = folder / "part-002.parquet"
    score = TABLE["score"].to_numpy()[200:].copy()
    score[7] = np.inf
    write(TABLE.slice(200).set_column(2, "score", pa.array(score)), third)
    data = dataset(tmp_path, folder, *FEATURES)
    with pytest.raises(UserError, match=r"part-002\.parquet, column score, row 7: .*inf"):
        prepare(data)
    write(TABLE.slice(200).drop_columns(["score"]), third)
    with pytest.raises(UserError, match=r"part-002\.parquet: no column 'score'"):
        prepare(data)
    third.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"part-002\.parquet: not a readable Parquet file"):
        prepare(data)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"empty: a folder without any \.parquet or \.csv file"):
        prepare(dataset(tmp_path, empty, *FEATURES))


def test_a_folder_can_be_checked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "raw", parts_of(TABLE, [100, 200]))
    whole = check(write(TABLE, tmp_path / "train.parquet"), folder)
    assert whole.rows == check(folder).rows == 300
    assert {drift for drift in whole.drift.values() if drift is not None} == {0.0}


@pytest.mark.parametrize("change", ["content", "name", "more", "fewer"])
def test_any_change_in_a_folder_is_seen(tmp_path: Path, change: str) -> None:
    folder = folder_of(tmp_path / "raw", parts_of(TABLE, [100, 200]))
    with Inputs({"train": folder}) as inputs:
        before = inputs.as_dict()
    with Inputs({"train": folder}) as inputs:
        assert inputs.same_as(before)
    files = files_in(folder)
    assert all(isinstance(file, Path) for file in files)
    first, last = Path(files[0]), Path(files[-1])
    if change == "content":  # of the same size
        data = bytearray(first.read_bytes())
        data[50] ^= 1
        first.write_bytes(data)
    elif change == "name":
        last.rename(folder / "a.parquet")
    elif change == "more":
        write(TABLE.slice(0, 0), folder / "z.parquet")
    else:
        last.unlink()
    with Inputs({"train": folder}) as inputs:
        assert not inputs.same_as(before)


def test_a_copy_of_a_folder_is_the_same(tmp_path: Path) -> None:
    parts = parts_of(TABLE, [100, 200])
    data = dataset(tmp_path, folder_of(tmp_path / "raw", parts), *FEATURES)
    first = prepare(data)
    stamp = (first.folder / "encoder.json").stat().st_mtime_ns
    prepare(dataset(tmp_path, folder_of(tmp_path / "copy", parts), *FEATURES))
    assert (first.folder / "encoder.json").stat().st_mtime_ns == stamp


# --- folders of CSV, and columns in the names of folders ---


def csv_folder(root: Path, parts: list[pa.Table]) -> Path:
    root.mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        path = root / f"part-{number}.csv{'.gz' if number % 2 else ''}"
        with pa.output_stream(str(path), compression="detect") as stream:
            pyarrow.csv.write_csv(part, stream)
    return root


@pytest.mark.parametrize("method", ["time", "random"])
def test_a_folder_of_csv_files_is_the_joined_file(tmp_path: Path, method: str) -> None:
    split: Any = ValidSplit(method=method, fraction=0.2)  # type: ignore[arg-type]
    pyarrow.csv.write_csv(TABLE, tmp_path / "train.csv")
    folder = csv_folder(tmp_path / "raw", parts_of(TABLE, [0, 17, 17, 290]))
    stores = [
        content(prepare(dataset(tmp_path / str(i), raw, *FEATURES, valid_split=split)).folder)
        for i, raw in enumerate((tmp_path / "train.csv", folder))
    ]
    assert stores[0] == stores[1]


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 25), (12, 58), (20, 40), (60, 70)])
def test_any_range_of_csv_files(tmp_path: Path, start: int, stop: int | None) -> None:
    table = pa.table({"row": range(60)})
    folder = csv_folder(tmp_path / "raw", parts_of(table, [20, 20, 45]))
    source = open_source(folder, {"row": "int"})
    rows = [r for b in source.batches(start=start, stop=stop) for r in b.column(0).to_pylist()]
    assert rows == list(range(60))[start:stop]
    error = Where(0, source.file).error("odd", "row", min(start, 59), None)
    if start < 60 and (start, stop) != (0, None):
        batch = next(
            open_source(Path(str(error.file)), {"row": "int"}).batches(start=error.row or 0)
        )
        assert batch.column(0)[0].as_py() == start


def test_a_bad_value_in_a_folder_of_csv_names_file_and_row(tmp_path: Path) -> None:
    at = TABLE.column_names.index("clicked")
    clicked = [*map(str, TABLE["clicked"].to_pylist()[:-1]), "yes"]
    folder = csv_folder(tmp_path, parts_of(TABLE.set_column(at, "clicked", [clicked]), [120]))
    with pytest.raises(UserError, match=r"part-1\.csv\.gz, column clicked, row 179: .* 'yes'"):
        prepare(dataset(tmp_path / "store", folder, *FEATURES))
    write(TABLE, folder / "part-3.parquet")
    with pytest.raises(UserError, match="a folder of files in several formats"):
        open_source(folder)


def partitioned(root: Path, form: str) -> Path:
    for day in range(1, 13):
        part = TABLE.slice(25 * (day - 1), 25)
        folder = root / f"month={day}" / f"dt=2026-01-{day:02d}" / ("shop=a%20b" if day > 1 else
            "shop=__HIVE_DEFAULT_PARTITION__")  # fmt: skip
        folder.mkdir(parents=True)
        if form == "csv":
            pyarrow.csv.write_csv(part, folder / "part-0.csv")
        else:
            write(part, folder / "part-0.parquet")
    return root


HIVE = (
    feature("month", "numeric", "float"), feature("dt", "categorical", "str"),
    feature("shop", "categorical", "str"), feature("seq", "sequence", "str"),
)  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_columns_in_the_names_of_folders_are_read(tmp_path: Path, form: str) -> None:
    folder = partitioned(tmp_path / "raw", form)
    days = np.repeat(np.arange(1, 13), 25)
    table = TABLE.append_column("month", pa.array(days))
    table = table.append_column("dt", pa.array([f"2026-01-{d:02d}" for d in days]))
    shops = pa.array([None if d == 1 else "a b" for d in days])
    whole = write(table.append_column("shop", shops), tmp_path / "whole.parquet")
    stores = [
        content(prepare(dataset(tmp_path / str(i), raw, *HIVE)).folder)
        for i, raw in enumerate((whole, folder))
    ]
    assert stores[0] == stores[1]
    found = check(folder)
    assert found.rows == 300
    assert found.columns["month"].mean == days.mean()
    assert (found.columns["dt"].kind, found.columns["shop"].missing) == ("times", 25)
    # A folder further down, and a single file, still know the columns above them.
    for part in (folder / "month=12", *files_in(folder / "month=12")):
        batches = list(open_source(part, {"dt": "str", "month": "int"}).batches())
        assert [b.column("month").to_pylist() for b in batches] == [[12] * 25]
        assert str(batches[0].column("dt")[0]) == "2026-01-12"
        (batch,) = open_source(part).batches(["dt"], start=3, stop=7)
        assert batch.num_rows == 4


def test_folders_that_disagree_on_their_columns_are_refused(tmp_path: Path) -> None:
    folder = partitioned(tmp_path / "raw", "parquet")
    write(TABLE, folder / "month=12" / "part-0.parquet")
    with pytest.raises(
        UserError, match=r"its folders name the columns month, those of .* month, dt"
    ):
        open_source(folder)


def test_a_remote_folder_of_csv_with_columns_in_its_names(store: Any) -> None:
    for day in (2, 10):
        with store.open(f"{URL}/day={day}/0.csv.gz", "wb") as file:
            file.write(gzip.compress(f"x\n{day}.5\n".encode()))
    source = open_source(URL, {"x": "float", "day": "int"})
    rows = [row for b in source.batches() for row in b.to_pylist()]
    assert rows == [{"x": 2.5, "day": 2}, {"x": 10.5, "day": 10}]


def test_a_file_moved_to_another_day_has_changed(tmp_path: Path) -> None:
    (tmp_path / "dt=1").mkdir()
    (tmp_path / "dt=2").mkdir()
    first = write(TABLE, tmp_path / "dt=1" / "rows.parquet")
    with Inputs({"train": first}) as inputs:
        before = inputs.as_dict()
    second = tmp_path / "dt=2" / "rows.parquet"
    first.rename(second)
    with Inputs({"train": second}) as inputs:
        assert not inputs.same_as(before)


@pytest.mark.parametrize("kind", ["missing", "pipe"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.csv"
    if kind == "pipe":
        os.mkfifo(path)
    problem = "is not a regular file" if kind == "pipe" else "does not exist"
    for read in (open_source, check, lambda p: Inputs({"data": p})):
        with pytest.raises(UserError, match=rf"rows\.csv: {problem}; check the path"):
            read(path)


def test_a_format_that_the_files_do_not_have_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "raw", parts_of(TABLE, [100]))
    with pytest.raises(UserError, match="is read as parquet by its name, but the config says data"):
        prepare(dataset(tmp_path, folder, *FEATURES, data_format="csv"))
    assert prepare(dataset(tmp_path, folder, *FEATURES, data_format="parquet")).train


# --- object stores ---


def test_a_url_of_a_file_or_a_prefix_gives_the_same_store(tmp_path: Path, store: Any) -> None:
    expected = prepare(dataset(tmp_path / "a", write(TABLE, tmp_path / "t.parquet"), *FEATURES))
    for number, part in enumerate(parts_of(TABLE, [120])):
        put(store, f"{URL}/{number}.parquet", part)
    put(store, "memory://bucket/one.parquet", TABLE)
    for name, url in (("b", f"{URL}/"), ("c", "memory://bucket/one.parquet")):
        data = DatasetConfig.model_validate(
            {**dataset(tmp_path / name, tmp_path, *FEATURES).model_dump(), "train_data": url}
        )
        assert content(prepare(data).folder) == content(expected.folder)
        assert DatasetConfig.model_validate_json(data.model_dump_json()) == data


def test_a_change_in_a_store_is_seen(store: Any) -> None:
    put(store, f"{URL}/0.parquet", TABLE)
    with Inputs({"train": URL}) as inputs:
        before = inputs.as_dict()
        assert inputs.same_as(before)
    put(store, f"{URL}/0.parquet", raw_table(300, seed=9))
    with Inputs({"train": URL}) as inputs:
        assert not inputs.same_as(before)


def test_an_etag_stands_for_the_content(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, f"{URL}/0.parquet", TABLE)
    info = type(store).info

    def tagged(tag: str) -> None:
        monkeypatch.setattr(type(store), "info", lambda *a, **k: {**info(*a, **k), "ETag": tag})

    monkeypatch.setattr("tossctr.data.preparing.fingerprint.opened", None)  # nothing is read
    tagged("one")
    with Inputs({"train": URL}) as inputs:
        before = inputs.as_dict()
    with Inputs({"train": URL}) as inputs:
        assert inputs.same_as(before)
    tagged("two")
    with Inputs({"train": URL}) as inputs:
        assert not inputs.same_as(before)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none", "memory://bucket/none: does not exist"),
        ("nowhere://bucket", "cannot be reached: ValueError: Protocol not known"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(store: Any, url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        open_source(url, {"at": "float"})
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **options: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"s3:// needs a package .*; Install s3fs to access S3"):
        open_source("s3://bucket/rows", {"at": "float"})


def test_a_file_url_is_a_path() -> None:
    assert located("file:///data/x.parquet") == Path("/data/x.parquet")
    assert located("s3://bucket/prefix/") == "s3://bucket/prefix"


def test_a_column_as_a_whole_is_named_with_the_file_of_the_batch() -> None:
    files = Files("memory://x", ("memory://x/a", "memory://x/b"), (10, 20))
    error = Where(10, files).error("odd", "c", None, None)
    assert (error.file, error.row) == ("memory://x/b", None)
