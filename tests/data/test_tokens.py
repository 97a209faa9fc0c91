from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.config.nulls import NA_VALUES
from tossctr.data.encoding.joined import JoinedIntegers
from tossctr.data.encoding.tokens import IntTokens, split_tokens
from tossctr.data.where import Where
from tossctr.errors import UserError

CANONICAL = st.integers(0, 10**18 - 1) | st.integers(0, 600)
ODD = st.sampled_from(["007", "-5", "+3", "x", "é", "12345678901234567890", "1.5", " 4", "9 "])
TYPES = st.sampled_from([pa.string(), pa.large_string()])
SPLITTERS = st.sampled_from([",", "|", "^", "::"])


def texts(array: pa.Array, splitter: str, dtype: str = "str") -> list[list[str]]:
    """The module's answer, as Python lists of texts."""
    tokens = split_tokens(array, splitter, dtype, NA_VALUES, "c", Where())  # type: ignore[arg-type]
    if isinstance(tokens, IntTokens):
        flat = [str(v) for v in tokens.values]
    else:
        flat = [tokens.texts[c] for c in tokens.codes]
    assert len(tokens.offsets) == len(array) + 1
    assert tokens.offsets[0] == 0
    assert tokens.offsets[-1] == len(flat)
    bounds = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    return [flat[a:b] for a, b in bounds]


def plain(row: str | None, splitter: str) -> list[str]:
    """The same in plain Python."""
    if row is None or row.strip() == "":
        return []
    return [token.strip() for token in row.split(splitter)]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), splitter=SPLITTERS, kind=TYPES, odd=st.booleans())
def test_joined_text_equals_plain_python(
    data: st.DataObject, splitter: str, kind: pa.DataType, odd: bool
) -> None:
    token = CANONICAL.map(str) | ODD if odd else CANONICAL.map(str)
    row = st.none() | st.just("") | st.just("  ") | st.lists(token, max_size=6).map(splitter.join)
    rows = data.draw(st.lists(row, max_size=12))
    start = data.draw(st.integers(0, len(rows)))
    array = pa.array(rows, kind)[start:]
    assert texts(array, splitter) == [plain(r, splitter) for r in rows[start:]]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.none() | st.lists(st.integers(0, 700), max_size=8), max_size=10),
    start=st.integers(0, 4),
    kind=TYPES,
)
def test_counting_and_looking_up_without_a_copy(
    rows: list[list[int] | None], start: int, kind: pa.DataType
) -> None:
    joined = [None if r is None else ",".join(map(str, r)) for r in rows]
    array = pa.array(joined, kind)[start:]
    flat = [t for r in rows[start:] if r for t in r]
    view = JoinedIntegers.of(array, ",")
    assert view is not None
    counted = view.count(701)
    assert counted is not None
    counts, longest = counted
    assert longest == max((len(r) for r in rows[start:] if r), default=0)
    assert counts.tolist() == np.bincount(flat, minlength=701).tolist() if flat else True
    table = np.arange(500, dtype=np.uint16)[::-1].copy()
    found = view.look_up(table, oov=999)
    assert found is not None
    indices, offsets, unseen = found
    assert indices.tolist() == [499 - t if t < 500 else 999 for t in flat]
    assert unseen == sum(t >= 500 for t in flat)
    assert np.diff(offsets).tolist() == [len(r or ()) for r in rows[start:]]


@pytest.mark.parametrize("token", ["007", "-1", "+1", "x", "1.5", " 1", "1" * 19, "", "9\n"])
def test_the_fast_path_is_used_for_plain_integers_only(token: str) -> None:
    view = JoinedIntegers.of(pa.array(["1,2", f"3,{token},4"]), ",")
    assert view is not None
    assert view.parse() is None
    assert view.count(100) is None
    assert view.look_up(np.zeros(100, np.uint8), 0) is None


def test_leading_zeros_matter_in_text_and_not_in_numbers() -> None:
    array = pa.array(["007,7", "8"])
    assert texts(array, ",") == [["007", "7"], ["8"]]
    assert texts(array, ",", "int") == [["7", "7"], ["8"]]


@pytest.mark.parametrize("value_type", [pa.int32(), pa.int64(), pa.uint64(), pa.string()])
@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
def test_lists(value_type: pa.DataType, list_type: type) -> None:
    rows = [[9], [1, 2], None, [], [3]]
    as_text = [None if r is None else [str(v) for v in r] for r in rows]
    values = as_text if pa.types.is_string(value_type) else rows
    array = pa.array(values, list_type(value_type))[1:]  # type: ignore[call-arg]
    for dtype in ("int", "str"):
        assert texts(array, ",", dtype) == [["1", "2"], [], [], ["3"]]


@pytest.mark.parametrize(
    ("array", "dtype", "row", "value"),
    [
        (pa.array(["1", "2,x,3"]), "int", 101, "x"),
        (pa.array(["1", None, "2", "4,7.5"]), "int", 103, "7.5"),
        (pa.array([[1.0], [2.0, 7.5]]), "int", 101, "7.5"),
        (pa.array([[1.0], [], [2.0, 2.0**53]]), "str", 102, 2.0**53),
        (pa.array([[1.0], [2.0**24]], pa.list_(pa.float32())), "int", 101, 2.0**24),
        (pa.array(["7", "8.0,9007199254740993.0"]), "str", 101, "9007199254740993.0"),
    ],
)
def test_a_bad_token_names_row_and_value(
    array: pa.Array, dtype: str, row: int, value: str | None
) -> None:
    with pytest.raises(UserError) as raised:
        split_tokens(array, ",", dtype, NA_VALUES, "seq", Where(100))  # type: ignore[arg-type]
    assert (raised.value.column, raised.value.row, raised.value.value) == ("seq", row, value)


@pytest.mark.parametrize(
    ("rows", "splitter", "other"),
    [
        (["1^2^3", None, "4^5"], ",", "^"),
        (["a^b", "c^d^e", "f"], ",", "^"),
        (["1,2,3", "4,5", "6"], "^", ","),
        (["1 2 3", "4 5"], ",", " "),
        (["11|12", "13|14"], "^", "|"),
    ],
)
@pytest.mark.parametrize("dtype", ["int", "str"])
def test_another_splitter_than_the_configured_one_is_named(
    rows: list[str | None], splitter: str, other: str, dtype: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"set splitter: {other!r}")) as raised:
        split_tokens(
            pa.array(rows),
            splitter,
            dtype,  # type: ignore[arg-type]
            NA_VALUES,
            "seq",
            Where(100),
        )
    assert raised.value.row == 100


@pytest.mark.parametrize(
    "rows", [["new york", "los angeles"], ["a,b", "c"], ["1^2", "3", "4"], ["7", "8"]]
)
def test_single_texts_that_hold_other_splitters_are_texts(rows: list[str]) -> None:
    splitter = "^" if "," in rows[0] else ","
    assert texts(pa.array(rows), splitter) == [[row] for row in rows]


def test_blanks_as_splitter_and_around_tokens() -> None:
    assert texts(pa.array([" 1  2 3 ", "", "   ", "4"]), " ") == [["1", "2", "3"], [], [], ["4"]]
    assert texts(pa.array([" 1 , 2,3 ", " "]), ",") == [["1", "2", "3"], []]
