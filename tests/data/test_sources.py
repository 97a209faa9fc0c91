from __future__ import annotations

import bz2
import csv
import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from frames import dataset, feature, raw_table, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tossctr.data.encoder import Encoder
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError
from tossctr.inference.predict import _even

TABLE = raw_table(101)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    pyarrow.csv.write_csv(TABLE, folder / "rows.csv")
    return {
        "parquet": write(TABLE, folder / "rows.parquet", row_group_size=17),
        "csv": folder / "rows.csv",
    }


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 110), length=st.none() | st.integers(0, 110), batch_rows=st.integers(1, 40)
)
def test_any_range_in_any_batch_size_gives_those_rows(
    files: dict[str, Path], kind: str, start: int, length: int | None, batch_rows: int
) -> None:
    source = open_source(files[kind], {"user": "int", "hour": "str"})
    stop = None if length is None else start + length
    batches = list(source.batches(start=start, stop=stop, batch_rows=batch_rows))
    expected = TABLE.select(["user", "hour"]).slice(start, length).to_pydict()
    assert all(batch.schema.names == ["user", "hour"] for batch in batches)
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    for name in ("user", "hour"):
        assert [v for b in batches for v in b.column(name).to_pylist()] == expected[name]


def test_rows_are_counted(files: dict[str, Path]) -> None:
    assert open_source(files["parquet"]).num_rows == 101
    assert open_source(files["csv"]).num_rows is None
    assert open_source(files["csv"]).count_rows() == 101
    assert open_source(files["csv"]).names == tuple(TABLE.column_names)


def test_csv_keeps_text_and_reads_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffhour,seq,x\n00,"1,02",1.5\n07,,\n'.encode())
    (batch,) = open_source(path, {"hour": "str", "seq": "str", "x": "float"}).batches()
    assert batch.to_pydict() == {
        "hour": ["00", "07"],
        "seq": ["1,02", None],
        "x": [1.5, None],
    }


def test_tab_separated(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("a\tb\n1,2\t3\n")
    (batch,) = open_source(path, {"b": "int"}).batches(["a", "b"])
    assert batch.to_pydict() == {"a": ["1,2"], "b": [3]}


def test_a_missing_column_names_the_nearest(files: dict[str, Path]) -> None:
    for path in files.values():
        with pytest.raises(UserError, match=r"no column 'scor'; did you mean 'score'\?"):
            open_source(path, {"scor": "float"})


def test_many_missing_columns_are_one_line(files: dict[str, Path]) -> None:
    names = [f"history_b_{i}" for i in range(37)]
    with pytest.raises(UserError) as raised:
        open_source(files["parquet"], dict.fromkeys(names, "float"))
    line = str(raised.value)
    assert "37 columns are missing: history_b_0, history_b_1, history_b_2, ..." in line
    assert str(files["parquet"]) in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("kept", [0, 3, 100, 3000])
def test_a_damaged_parquet_file(files: dict[str, Path], tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.parquet"
    path.write_bytes(files["parquet"].read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut\.parquet: not a readable Parquet file"):
        open_source(path)


def test_parquet_pages_overwritten(files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["parquet"].read_bytes())
    data[4:4000] = b"\xff" * 3996
    path = tmp_path / "pages.parquet"
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        list(open_source(path).batches())


def test_a_wrong_csv_value_names_row_and_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,x\n" + "p,1.5\n" * 7 + "p,oops\n")
    with pytest.raises(UserError) as raised:
        list(open_source(path, {"x": "float"}).batches())
    assert "oops" in str(raised.value)
    assert "column x" in str(raised.value)
    assert raised.value.row == 7


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_rows_of_csv_errors_are_those_of_pandas(tmp_path: Path, suffix: str) -> None:
    lines = [f"{i},{i}.5" for i in range(3000)]
    lines[5] = "\n" + lines[5]  # an empty line is no row
    lines[6] = '"a\nb",1'
    path = tmp_path / f"rows.{suffix}"
    for at, line, problem in (
        (700, "700, free", "not of type float (found 'free')"),
        (2999, "1,2,3", '3 fields, where the header has 2; quote (") fields'),
    ):
        changed = [*lines[:at], line, *lines[at + 1 :]]
        text = "a,x\n" + "\n".join(changed) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if suffix == "csv.gz" else text.encode())
        with pytest.raises(UserError) as raised:
            list(open_source(path, {"x": "float"}).batches(batch_rows=100))
        assert problem in str(raised.value)
        assert raised.value.row == at
        if at == 700:
            assert str(pd.read_csv(path)["x"][raised.value.row]).strip() == "free"


@pytest.mark.parametrize("separator", ["\t", ";", "|", ","])
def test_columns_are_separated_by_what_the_header_has(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "rows.csv"
    frame = pd.DataFrame({"a;,b": ["1", "2"], "x": [1.5, 2.5], "y": ["p,q", "r"]})
    frame.to_csv(path, sep=separator, index=False, quoting=csv.QUOTE_ALL)
    (batch,) = open_source(path, {"x": "float"}).batches(["a;,b", "x", "y"])
    assert batch.to_pydict() == frame.to_dict(orient="list")


@pytest.mark.parametrize(
    ("encoding", "row", "name"),
    [("utf-16", None, "UTF-16"), ("utf-16-le", None, "UTF-16"), ("latin-1", 2, "no UTF-8")],
)
def test_another_encoding_is_named(
    tmp_path: Path, encoding: str, row: int | None, name: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("city,x\nA,1\nB,2\nOrléans,3\n".encode(encoding))
    with pytest.raises(UserError, match=f"is {name} text; convert it: iconv -f ") as raised:
        list(open_source(path, {"city": "str"}).batches())
    assert raised.value.row == row


def test_labels_of_csv_are_those_of_parquet(tmp_path: Path) -> None:
    found = []
    for label in ([True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], ["true", "FALSE", "1"]):
        frame = pd.DataFrame({"x": [1, 2, 3], "clicked": label})
        frame.to_csv(tmp_path / "rows.csv", index=False)
        frame.to_parquet(tmp_path / "rows.parquet")
        for name in ("rows.csv", "rows.parquet"):
            data = dataset(tmp_path, tmp_path / name, feature("x", "numeric", "float"))
            types = {"x": "float", "clicked": "str"}
            source = open_source(tmp_path / name, types)  # type: ignore[arg-type]
            (batch,) = source.batches()
            found.append(Encoder.fit(data, [batch]).transform(batch).label)
    assert all(label is not None and label.tolist() == [1, 0, 1] for label in found)


COMPRESSED = {"csv.gz": gzip.compress, "csv.bz2": bz2.compress, "tsv.gz": gzip.compress,
              "csv.zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True)}  # fmt: skip


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_csv_is_read_and_a_damaged_one_refused(tmp_path: Path, suffix: str) -> None:
    text = "a,x\n" + "".join(f"{i},{i}.25\n" for i in range(5000))
    data = COMPRESSED[suffix](text.replace(",", "\t" if "tsv" in suffix else ",").encode())
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(data)
    source = open_source(path, {"x": "float"})
    rows = [x for b in source.batches(start=3, stop=4998) for x in b.column("x").to_pylist()]
    assert rows == [i + 0.25 for i in range(3, 4998)]
    assert source.count_rows() == 5000
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cannot be read: .*; write it again"):
        list(open_source(path, {"x": "float"}).batches())


@pytest.mark.parametrize(("name", "content"), [("no.parquet", None), ("empty.csv", b"")])
def test_missing_and_empty_files(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        open_source(tmp_path / name, {"a": "str"})


def test_a_row_group_is_not_decoded_whole(tmp_path: Path) -> None:
    # 40 MB of text in one row group: the first small batch must not take memory for all of it.
    rows = 20_000
    text = pa.array(["7," * 1000 + "7"] * rows)
    path = tmp_path / "one_group.parquet"
    pa.parquet.write_table(
        pa.table({"seq": text}), path, use_dictionary=False, compression="snappy"
    )
    del text
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    stream = open_source(path).batches(batch_rows=100)
    first = next(stream)
    assert first.num_rows == 100
    assert pool.bytes_allocated() - before < 12e6


def test_a_csv_row_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    lines = [f'{i},"1,2"' for i in range(2000)]
    lines[1500] = '1500,"' + ",".join(["7"] * 3_000_000) + '"'
    path.write_text("a,seq\n" + "\n".join(lines) + "\n")
    batches = list(open_source(path).batches(batch_rows=700))
    assert [int(a) for b in batches for a in b.column("a").to_pylist()] == list(range(2000))
    lengths = [len(x) for b in batches for x in b.column("seq").to_pylist()]
    assert max(lengths) == 5_999_999


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "korean.csv"
    path.write_bytes("성별,클릭\n1,0\n".encode("cp949"))
    with pytest.raises(UserError, match=r"is no UTF-8 text; convert it: iconv -f ENCODING"):
        open_source(path)


def bomb(path: Path, kind: str, rows: int, events: int) -> Path:
    """A small file of large rows."""
    if kind == "list":
        offsets = pa.array(range(0, (rows + 1) * events, events), pa.int64())
        seq = pa.LargeListArray.from_arrays(offsets, pa.array([7] * (rows * events), pa.int8()))
    elif kind == "texts in lists":
        seq = pa.array([[], *[["7" * 1000] * (events // 100)] * (rows - 1)])
    else:
        seq = pa.array([",".join(["7"] * events)] * rows, pa.large_string())
    table = pa.table({"seq": seq, "row": range(rows)})
    pa.parquet.write_table(table, path, use_dictionary=kind != "plain", compression="zstd")
    return path


@pytest.mark.parametrize("kind", ["list", "texts in lists", "repeated text", "plain"])
def test_batches_are_bounded_in_bytes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tossctr.data.sources.bounded.BATCH_BYTES", 1 << 20)
    monkeypatch.setattr("tossctr.data.sources.parquet._DECODED_BYTES", 1 << 20)
    path = bomb(tmp_path / "rows.parquet", kind, 120, 50_000)
    assert path.stat().st_size < 100_000
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    rows, largest = [], 0
    for batch in open_source(path).batches(start=3):
        rows += batch.column("row").to_pylist()
        largest = max(largest, pool.bytes_allocated() - before)
        assert batch.nbytes <= 1 << 20
    assert rows == list(range(3, 120))
    if kind != "plain":  # there a page is decompressed whole, here 12 MB
        assert largest < 8e6


def test_a_row_beyond_all_bounds_and_a_chunk_that_explodes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "rows.parquet", "plain", 30, 50_000)
    monkeypatch.setattr("tossctr.data.sources.parquet._BOMB_BYTES", 1 << 20)
    with pytest.raises(UserError, match=r"column seq: 0\.0 MB that decompress to 3 MB"):
        list(open_source(path).batches())
    source = open_source(path)
    assert sum(b.num_rows for b in source.batches(["row"])) == 30
    with pytest.raises(UserError, match="column seq"):
        list(source.batches(["seq"]))
    monkeypatch.undo()
    monkeypatch.setattr("tossctr.data.sources.bounded.MAX_ROW_BYTES", 1 << 16)
    with pytest.raises(UserError, match=r"column seq, row 4: a row of 0 MB; cut the sequence"):
        list(open_source(path).batches(start=4))


def test_a_file_is_opened_twice_for_any_number_of_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pa.array(["7" * 20_000, None] * 20)  # each group says how long its texts are
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(pa.table({"a": texts, "b": texts}), path, row_group_size=4)
    source, real, opened = open_source(path), pa.parquet.ParquetFile, []
    monkeypatch.setattr(
        "pyarrow.parquet.ParquetFile", lambda *a, **k: opened.append(k) or real(*a, **k)
    )
    assert pa.Table.from_batches(source.batches())["b"].to_pylist() == texts.to_pylist()
    assert len(opened) == 2
    list(source.batches())
    assert len(opened) == 3


@pytest.mark.parametrize("limit", [1 << 30, 2000])
def test_batches_of_predictions_do_not_depend_on_batches_of_the_source(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("tossctr.inference.predict.BATCH_BYTES", limit)
    texts = ["7" * (i * 37 % 1500) for i in range(101)]
    whole = pa.record_batch({"seq": texts, "row": range(101)})
    found = []
    for size, start in ((101, 0), (1, 0), (7, 0), (13, 20), (101, 40)):
        stream = (whole.slice(at, min(size, 101 - at)) for at in range(start, 101, size))
        found.append([b.column("row").to_pylist() for b in _even(stream, 20)])
    assert [row for part in found[0] for row in part] == list(range(101))
    assert all(parts == found[0][-len(parts) :] for parts in found)
    assert all(len({row // 20 for row in part}) == 1 for part in found[0])
    if limit == 2000:
        assert max(sum(len(texts[r]) for r in part) for part in found[0] if len(part) > 1) <= 2000
