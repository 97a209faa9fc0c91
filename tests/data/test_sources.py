from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from frames import raw_table, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tossctr.data.sources import open_source
from tossctr.errors import UserError

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


def test_a_csv_line_with_too_many_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,x\np,1\nq,2,3\n")
    with pytest.raises(UserError, match="cannot be read"):
        list(open_source(path).batches())


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
    with pytest.raises(UserError, match=r"is not UTF-8 text; save it as UTF-8"):
        open_source(path)
