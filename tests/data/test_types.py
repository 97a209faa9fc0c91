"""Every Arrow type in every part that a column can play: read, or refused with a true remedy."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frames import dataset, feature

from tossctr.config.schema import FeatureConfig
from tossctr.data.encoder import Encoder
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError

EPOCH = dt.datetime(1970, 1, 1)
WHEN = [dt.datetime(2026, 1, 2, 3, 4, 5, 678901), dt.datetime(2025, 12, 31), None]
NANOS = [1767323045678901234, 1767139200000000000, None]
SECONDS = [None if t is None else (t - EPOCH).total_seconds() for t in WHEN]
IDS = [UUID(int=7), UUID(int=2**127), None]
DAYS = [dt.date(2026, 1, 2), dt.date(2025, 12, 31), None]
LISTS = [[3, 5], None, [5, 5]]

TEXTS: dict[str, tuple[pa.Array, list[str | None]]] = {
    "string_view": (pa.array(["a", "b", None], pa.string_view()), ["a", "b", None]),
    "large_string": (pa.array(["a", "b", None], pa.large_string()), ["a", "b", None]),
    "dictionary": (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
    "binary": (pa.array([b"a", b"b", None]), ["a", "b", None]),
    "binary_view": (pa.array([b"a", b"b", None], pa.binary_view()), ["a", "b", None]),
    "large_binary": (pa.array([b"a", b"b", None], pa.large_binary()), ["a", "b", None]),
    "fixed binary": (pa.array([b"a", b"b", None], pa.binary(1)), ["a", "b", None]),
    "uuid": (
        pa.array([i and i.bytes for i in IDS], pa.uuid()),
        [None if i is None else str(i) for i in IDS],
    ),
    "date32": (pa.array(DAYS, pa.date32()), ["2026-01-02", "2025-12-31", None]),
    "date64": (pa.array(DAYS, pa.date64()), ["2026-01-02", "2025-12-31", None]),
    "timestamp[us]": (
        pa.array(WHEN, pa.timestamp("us")),
        [None if t is None else str(t) for t in WHEN],
    ),
}
NUMBERS: dict[str, tuple[pa.Array, list[float | None]]] = {
    "timestamp[us]": (pa.array(WHEN, pa.timestamp("us")), SECONDS),
    "timestamp[ns]": (pa.array(NANOS, pa.timestamp("ns")), SECONDS),
    "timestamp with a zone": (pa.array(NANOS, pa.timestamp("ns", "Asia/Seoul")), SECONDS),
    "date32": (pa.array(DAYS, pa.date32()), [1767312000.0, 1767139200.0, None]),
    "date64": (pa.array(DAYS, pa.date64()), [1767312000.0, 1767139200.0, None]),
    "time64": (pa.array([dt.time(0, 0, 1, 500000), dt.time(1), None]), [1.5, 3600.0, None]),
    "time32": (pa.array([1500, 3600000, None], pa.time32("ms")), [1.5, 3600.0, None]),
    "duration": (pa.array([1_500_000_000, 60 * 10**9, None], pa.duration("ns")), [1.5, 60, None]),
    "decimal": (pa.array([Decimal("1.50"), Decimal("-2.25"), None]), [1.5, -2.25, None]),
    "decimal32": (
        pa.array([Decimal("1.50"), Decimal("-2.25"), None], pa.decimal32(5, 2)),
        [1.5, -2.25, None],
    ),
    "float16": (pa.array(np.array([1.5, -2.25, np.nan], np.float16)), [1.5, -2.25, None]),
    "bool": (pa.array([True, False, None]), [1.0, 0.0, None]),
    "dictionary": (pa.array([1.5, -2.25, None]).dictionary_encode(), [1.5, -2.25, None]),
    "uint8": (pa.array([1, 255, None], pa.uint8()), [1.0, 255.0, None]),
}
SEQUENCES: dict[str, pa.Array] = {
    "list": pa.array(LISTS),
    "large_list": pa.array(LISTS, pa.large_list(pa.int32())),
    "fixed_size_list": pa.array(LISTS, pa.list_(pa.int64(), 2)),
    "list_view": pa.array(LISTS, pa.list_view(pa.int64())),
    "list of string_view": pa.array([["3", "5"], None, ["5", "5"]], pa.list_(pa.string_view())),
    "joined string_view": pa.array(["3,5", None, "5,5"], pa.string_view()),
    "joined binary": pa.array([b"3,5", None, b"5,5"], pa.large_binary()),
}
STRUCT = pa.array([{"a": 1}, {"a": 2}, None])
NESTED = pa.array([[[1]], [[2], [3]], None])
MAP = pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64()))
OTHERS = {"struct": STRUCT, "nested list": NESTED, "map": MAP}


def written(path: Path, array: pa.Array, **options: Any) -> Path:
    table = pa.table({"x": array, "clicked": [0, 1, 0]})
    pq.write_table(table, path / "rows.parquet", **options)
    return path / "rows.parquet"


def encoded(path: Path, spec: FeatureConfig) -> tuple[Encoder, EncodedRows]:
    data = dataset(path.parent, path, spec)
    source = open_source(path)
    (batch,) = source.batches()
    encoder = Encoder.fit(data, [batch])
    return encoder, encoder.transform(batch, file=path)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_category_of_any_type_is_its_text(tmp_path: Path, kind: str) -> None:
    array, expected = TEXTS[kind]
    encoder, rows = encoded(written(tmp_path, array), feature("x", "categorical", "str"))
    tokens = ("", *(encoder.tokens("x") or ()), None)  # PAD, tokens, and OOV for what is missing
    assert [tokens[i] for i in rows.categorical[:, 0]] == expected


def test_a_time_is_one_category_in_any_unit(tmp_path: Path) -> None:
    found = []
    for unit in ("s", "ms", "us", "ns"):
        array = pa.array([dt.datetime(2026, 1, 2), None, None], pa.timestamp(unit))
        path = written(tmp_path, array)
        found.append(encoded(path, feature("x", "categorical", "str"))[0].tokens("x"))
    assert set(found) == {("2026-01-02 00:00:00",)}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("role", ["numeric", "time"])
def test_a_number_or_a_time_of_any_type(tmp_path: Path, kind: str, role: str) -> None:
    array, expected = NUMBERS[kind]
    _, rows = encoded(written(tmp_path, array), feature("x", role, "float", fill_na=-1))
    values = rows.numeric[:, 0] if role == "numeric" else rows.times[:, 0]
    np.testing.assert_allclose(values, [-1 if x is None else x for x in expected], rtol=1e-7)
    if role == "time":
        np.testing.assert_allclose(values[0], expected[0], rtol=0, atol=1e-6)


def test_int96_with_parts_of_a_second(tmp_path: Path) -> None:
    array = pa.array(NANOS, pa.timestamp("ns"))
    path = written(tmp_path, array, use_deprecated_int96_timestamps=True)
    _, rows = encoded(path, feature("x", "time", "float"))
    np.testing.assert_allclose(rows.times[:2, 0], SECONDS[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("dtype", ["str", "int", "float"])
def test_a_sequence_of_any_layout(tmp_path: Path, kind: str, dtype: str) -> None:
    path = written(tmp_path, SEQUENCES[kind])
    encoder, rows = encoded(path, feature("x", "sequence", dtype))
    ragged = rows.sequences["x"]
    assert ragged.offsets.tolist() == [0, 2, 2, 4]
    if dtype == "float":
        assert ragged.values.tolist() == [3, 5, 5, 5]
    else:
        tokens = ("", *(encoder.tokens("x") or ()))
        assert [tokens[i] for i in ragged.values] == ["3", "5", "5", "5"]


def test_lists_of_times(tmp_path: Path) -> None:
    array = pa.array([NANOS[:2], None, NANOS[1:2]], pa.list_(pa.timestamp("ns")))
    _, rows = encoded(written(tmp_path, array), feature("x", "time", "float", splitter=","))
    expected = [*SECONDS[:2], SECONDS[1]]
    np.testing.assert_allclose(rows.time_sequences["x"].values, expected, rtol=0, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("role", ["categorical", "numeric", "time", "meta", "sequence", "label"])
def test_what_no_column_can_be_is_refused_with_a_remedy(
    tmp_path: Path, kind: str, role: str
) -> None:
    if role == "label":
        table = pa.table({"x": [1, 2, 3], "clicked": OTHERS[kind]})
        pq.write_table(table, tmp_path / "rows.parquet")
        path, spec = tmp_path / "rows.parquet", feature("x", "numeric", "float")
    else:
        path = written(tmp_path, OTHERS[kind])
        dtype = {"numeric": "float", "time": "float"}.get(role, "str")
        spec = feature("x", role, dtype)
    with pytest.raises(UserError) as raised:
        encoded(path, spec)
    assert raised.value.column == ("clicked" if role == "label" else "x")
    assert "holds" in raised.value.problem
    assert raised.value.remedy
    if kind == "struct" and role not in ("label", "sequence"):
        assert raised.value.remedy == "write each of its fields as a separate column"


LABELS: dict[str, pa.Array] = {
    "bool": pa.array([True, False, True]),
    "texts": pa.array(["True", "false", " 1"]),
    "decimal": pa.array([Decimal("1.0"), Decimal("0.0"), Decimal("1.0")]),
    "string_view": pa.array(["1", "0", "1.0"], pa.string_view()),
    "dictionary": pa.array(["1", "0", "1"]).dictionary_encode(),
    "uint8": pa.array([1, 0, 1], pa.uint8()),
    "float16": pa.array(np.array([1, 0, 1], np.float16)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_label_of_any_type(tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3], "clicked": LABELS[kind]}), tmp_path / "rows.parquet")
    _, rows = encoded(tmp_path / "rows.parquet", feature("x", "numeric", "float"))
    assert rows.label is not None
    assert rows.label.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array(["1", "yes", "0"]), r"row 1: the label is not 0 or 1 \(found 'yes'\)"),
        (pa.array(["1", "0", None]), r"row 2: the label is missing; correct or drop"),
        (pa.array(["1", "", "0"]), r"row 1: the label is missing"),
        (pa.array([1.0, float("nan"), 0.0]), r"row 1: the label is missing"),
        (pa.array([1, 0, 2]), r"row 2: the label is not 0 or 1 \(found 2\)"),
    ],
)
def test_a_wrong_label_is_named(tmp_path: Path, values: pa.Array, problem: str) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3], "clicked": values}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=problem):
        encoded(tmp_path / "rows.parquet", feature("x", "numeric", "float"))
