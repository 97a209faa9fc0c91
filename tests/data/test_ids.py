"""An id is the same in every type of a file; the reference is plain Python and pandas."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from frames import dataset, feature
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.config.nulls import NA_VALUES, as_na_values
from tossctr.config.schema import DatasetConfig, FeatureConfig
from tossctr.data.encoder import Encoder, EncodingReport
from tossctr.data.encoding.ids import AmbiguousIdError, id_array, id_text, row_ids, same_ids
from tossctr.data.health.check import check
from tossctr.data.prepare import prepare
from tossctr.data.sources.opening import open_source
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.inference.predict import Predictions
from tossctr.inference.submission import read_sample, write_submission

Ids = list[int | None]
Histories = list[list[int | None] | None]
LARGE = 19_673_059_019  # an id of the kind, beyond 32 bits


def batch(**columns: pa.Array) -> pa.RecordBatch:
    rows = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"clicked": pa.array([0] * rows), **columns})


def config(*features: FeatureConfig, **options: Any) -> DatasetConfig:
    return dataset(Path(), Path("train.parquet"), *features, **options)


def fit(data: pa.RecordBatch, *features: FeatureConfig, **options: Any) -> Encoder:
    return Encoder.fit(config(*features, **options), [data])


def written(value: object) -> str | None:
    return None if value is None else str(value)


ids = st.none() | st.integers(-3, 9) | st.sampled_from([LARGE, 2**53 - 1])
CATEGORIES = {
    "int64": lambda v: pa.array(v, pa.int64()),
    "float64": lambda v: pa.array([None if x is None else float(x) for x in v], pa.float64()),
    "NaN": lambda v: pa.array([np.nan if x is None else float(x) for x in v], pa.float64()),
    "decimal": lambda v: pa.array(
        [None if x is None else Decimal(x) for x in v], pa.decimal128(20, 2)
    ),
    "text": lambda v: pa.array(list(map(written, v)), pa.string()),
    "text of floats": lambda v: pa.array(
        [None if x is None else str(float(x)) for x in v], pa.large_string()
    ),
    "Arrow's text of floats": lambda v: pa.array(
        [None if x is None else float(x) for x in v], pa.float64()
    ).cast(pa.string()),
    "blanks": lambda v: pa.array(["" if x is None else f" {x}\t" for x in v]),
    "markers": lambda v: pa.array([NA_VALUES[i % 19] if x is None else str(x)
                                   for i, x in enumerate(v)]),
    "dictionary": lambda v: pa.array(list(map(written, v)), pa.string()).dictionary_encode(),
    "dictionary of ints": lambda v: pa.array(v, pa.int64()).dictionary_encode(),
}  # fmt: skip


def plain(seen: list[int], new: list[int]) -> tuple[tuple[str, ...], list[int]]:
    """The vocabulary of `seen`, and the indices of `new`."""
    counts = Counter(map(str, seen))
    tokens = tuple(sorted(counts, key=lambda t: (-counts[t], t)))
    index = {token: i for i, token in enumerate(tokens, 1)}
    return tokens, [index.get(str(v), len(tokens) + 1) for v in new]


@settings(max_examples=60)
@given(seen=st.lists(ids, min_size=1), new=st.lists(ids, min_size=1), data=st.data())
def test_a_category_is_the_same_in_every_type(seen: Ids, new: Ids, data: st.DataObject) -> None:
    given_as = st.sampled_from(list(CATEGORIES))
    train, later = (CATEGORIES[data.draw(given_as)] for _ in range(2))
    dtype = data.draw(st.sampled_from(["str", "int", "float"]))
    spec = feature("c", "categorical", dtype)
    encoder = fit(batch(c=train(seen)), spec)
    report = EncodingReport()
    rows = encoder.transform(batch(c=later(new)), report=report)
    known = [v for v in new if v is not None]
    tokens, indices = plain([v for v in seen if v is not None], known)
    assert encoder.tokens("c") == tokens
    oov = len(tokens) + 1
    expected = iter(indices)
    assert rows.categorical[:, 0].tolist() == [oov if v is None else next(expected) for v in new]
    assert report.unseen_shares() == (
        {"c": float(np.mean([i == oov for i in indices]))} if indices else {}
    )
    assert report.missing["c"] == len(new) - len(known)


def as_lists(histories: Histories, kind: pa.DataType, of: Any) -> pa.Array:
    rows = [None if h is None else [None if v is None else of(v) for v in h] for h in histories]
    return pa.array(rows, pa.list_(kind))


def as_texts(histories: Histories, write: Any) -> pa.Array:
    return pa.array([None if h is None else write(h) for h in histories], pa.string())


def joined(values: list[int | None], null: str, end: str = "", by: str = ",") -> str:
    return by.join(null if v is None else f"{v}{end}" for v in values)


SEQUENCES = {
    "list of int64": lambda h: as_lists(h, pa.int64(), int),
    "list of double": lambda h: as_lists(h, pa.float64(), float),
    "list of text": lambda h: as_lists(h, pa.string(), str),
    "large list": lambda h: as_lists(h, pa.int64(), int).cast(pa.large_list(pa.int64())),
    "joined": lambda h: as_texts(h, lambda v: joined(v, "NULL")),
    "joined floats": lambda h: as_texts(h, lambda v: joined(v, "nan", ".0")),
    "joined with blanks": lambda h: as_texts(h, lambda v: joined(v, "", by=" , ")),
    "dictionary": lambda h: as_texts(h, lambda v: joined(v, "\\N")).dictionary_encode(),
    "JSON": lambda h: as_texts(h, json.dumps),
    "JSON of text": lambda h: as_texts(
        h, lambda v: json.dumps([None if x is None else str(x) for x in v])
    ),
    "Python's list": lambda h: as_texts(h, str),
    "Python's tuple": lambda h: as_texts(h, lambda v: str(tuple(v))),
    "Python's list of text": lambda h: as_texts(
        h, lambda v: str([None if x is None else str(x) for x in v])
    ),
    "Postgres": lambda h: as_texts(h, lambda v: "{" + joined(v, "NULL") + "}"),
    "NumPy": lambda h: as_texts(h, lambda v: str(np.array([np.nan if x is None else x for x in v]))
        if all(x is None or abs(x) < 10**6 for x in v) else json.dumps(v)),
    "pandas": lambda h: as_texts(h, lambda v: str(list(pd.Series(v, dtype="float64")))),
}  # fmt: skip


@settings(max_examples=120)
@given(
    seen=st.lists(st.none() | st.lists(ids, max_size=5), min_size=1, max_size=8),
    new=st.lists(st.none() | st.lists(ids, max_size=5), min_size=1, max_size=8),
    data=st.data(),
)
def test_a_history_is_the_same_in_every_type(
    seen: Histories, new: Histories, data: st.DataObject
) -> None:
    given_as = st.sampled_from(list(SEQUENCES))
    train, later = (SEQUENCES[data.draw(given_as)] for _ in range(2))
    dtype = data.draw(st.sampled_from(["str", "int"]))
    encoder = fit(batch(seq=train(seen)), feature("seq", "sequence", dtype))
    report = EncodingReport()
    rows = encoder.transform(batch(seq=later(new)), report=report)
    there = [[v for v in h or [] if v is not None] for h in new]
    tokens, indices = plain(
        [v for h in seen for v in h or [] if v is not None], [v for h in there for v in h]
    )
    assert encoder.tokens("seq") == tokens
    assert rows.sequences["seq"].lengths.tolist() == list(map(len, there))
    assert rows.sequences["seq"].values.tolist() == indices
    unseen = float(np.mean([i == len(tokens) + 1 for i in indices])) if indices else None
    assert report.unseen_shares().get("seq") == unseen


@settings(max_examples=25)
@given(values=st.lists(ids, min_size=1, max_size=6), numbers=st.lists(ids, min_size=1))
def test_ids_read_from_files_equal_those_in_memory(
    tmp_path_factory: pytest.TempPathFactory, values: list[int | None], numbers: Ids
) -> None:
    """pandas writes CSV and Parquet; a missing id makes its column one of floats."""
    folder = tmp_path_factory.mktemp("files")
    frame = pd.DataFrame({"c": numbers, "seq": [joined(values, "NA")] * len(numbers)})
    frame["clicked"] = 0
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet", index=False)
    pa.csv.write_csv(pa.table(frame), folder / "arrow.csv")
    features = feature("c", "categorical", "str"), feature("seq", "sequence", "str")
    expected = fit(batch(c=pa.array(numbers, pa.int64()), seq=pa.array([values] * len(numbers),
                         pa.list_(pa.int64()))), *features)  # fmt: skip
    types = expected.columns(labelled=True)
    for name in ("a.csv", "arrow.csv", "a.parquet"):
        source = open_source(folder / name, types)
        assert Encoder.fit(config(*features), source.batches()).hash == expected.hash


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"), (7.0, "7"), (-0.0, "0"), ("7.0", "7"), ("7.", "7"), ("-7.00", "-7"),
        (" 7 ", "7"), ("07", "07"), ("07.0", "07.0"), ("7.5", "7.5"), (7.5, "7.5"),
        (Decimal("7.50"), "7.5"), (Decimal(f"{LARGE**3}.50"), f"{LARGE**3}.5"),
        (Decimal("9007199254740993.0"), "9007199254740993"),
        ("1.9673059019e+10", "19673059019"), ("1.9673059019E10", "19673059019"),
        ("1e+10", "10000000000"), ("1e5", "1e5"), ("12e3", "12e3"), (2**63, str(2**63)),
        ("é", "é"), ("e\u0301", "é"), ("\u00a0x ", "x"), (True, "true"), ("True", "true"),
        ("NA", ""), (" null ", ""), ("\\N", ""), ("", ""), (None, ""), (float("nan"), ""),
        ("na", "na"), ("none", "none"),
    ],
)  # fmt: skip
def test_the_text_of_an_id(value: Any, text: str) -> None:
    assert id_text(value, NA_VALUES) == text


@settings(max_examples=200)
@given(st.text() | st.sampled_from(["1e5", "-7", "a_1", "E+5", "٣", "True", "7.0", "x1 "]))
def test_an_id_is_compared_by_its_text(text: str) -> None:
    try:
        expected = id_text(text, ())
    except AmbiguousIdError:
        return
    assert same_ids(pa.array([text], pa.large_string())).to_pylist() == [expected or None]
    assert expected == unicodedata.normalize("NFC", expected).strip()
    assert id_text(expected, ()) == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1.0, 2.0**53]),
        pa.array([1.0, 2.0**24], pa.float32()),
        pa.array([1.0, 2.0**11], pa.float16()),
        pa.array(["1", "9007199254740993.0"]),
    ],
)
@pytest.mark.parametrize("kind", ["categorical", "meta"])
def test_a_float_that_may_be_several_ids_is_refused(array: pa.Array, kind: str) -> None:
    with pytest.raises(
        UserError, match="column c, row 1: a float too large to identify a single id"
    ):
        fit(batch(c=array), feature("c", kind, "int")).transform(batch(c=array))
    with pytest.raises(UserError, match="column c, row 6: a float too large"):
        id_array(array, NA_VALUES, "c", Where(5))


def test_ids_of_narrow_floats_have_their_shortest_digits(tmp_path: Path) -> None:
    column = pa.array([0.1, 2047, None, 2.0], pa.float16())
    pq.write_table(pa.table({"c": column, "n": column, "clicked": [0, 1, 0, 1]}), tmp_path / "a")
    features = feature("c", "categorical", "str"), feature("n", "numeric", "float")
    encoder = Encoder.fit(config(*features), open_source(tmp_path / "a").batches())
    assert encoder.tokens("c") == ("0.1", "2", "2047")
    assert check(tmp_path / "a").columns["c"].kind == "numbers"
    pq.write_table(pa.table({"c": pa.array([1, 2048], pa.float16())}), tmp_path / "b")
    (data,) = open_source(tmp_path / "b").batches()
    with pytest.raises(
        UserError, match="column c, row 1: a float too large to identify a single id"
    ):
        id_array(data.column("c"), NA_VALUES, "c", Where())


@pytest.mark.parametrize("dtype", ["str", "int"])
def test_integers_beyond_64_bits_are_ids(dtype: str) -> None:
    values = [2**63, 2**64 - 1, 5, None]
    unsigned = pa.array(values, pa.uint64())
    lists = pa.array([[v] for v in values[:3]] + [None], pa.list_(pa.uint64()))
    features = (
        feature("c", "categorical", dtype),
        feature("seq", "sequence", dtype),
        feature("user", "meta", dtype),
    )
    rows = fit(batch(c=unsigned, seq=lists, user=unsigned), *features).transform(
        batch(c=unsigned, seq=lists, user=unsigned)
    )
    assert rows.categorical[:, 0].tolist() == [3, 1, 2, 4]
    assert rows.sequences["seq"].values.tolist() == [3, 1, 2]
    assert len(set(rows.meta[:, 0].tolist())) == 4
    least = pa.array([-(2**63), None], pa.int64())  # the number that marks a missing group
    groups = fit(batch(user=least), features[2]).transform(batch(user=least)).meta[:, 0]
    assert groups[0] != groups[1]


def test_a_batch_without_any_index() -> None:
    spec = feature("c", "categorical", "int", remap=False)
    empty = batch(c=pa.nulls(2, pa.int64()))
    encoder = Encoder.fit(config(spec), [batch(c=pa.array([0, 3])), empty])
    assert encoder.features["c"].vocab_size == 5
    assert encoder.transform(empty).categorical[:, 0].tolist() == [4, 4]
    with pytest.raises(UserError, match="an index of more than 32 bits"):
        fit(batch(c=pa.array([0, 2**63], pa.uint64())), spec)


@pytest.mark.parametrize(("dtype", "fill"), [("float", 0), ("int", 0.0), ("str", " 0 ")])
def test_what_is_filled_in_is_the_same_id(dtype: str, fill: Any) -> None:
    data = batch(c=pa.array([0.0, None, 1.0, 0.0]))
    encoder = fit(data, feature("c", "categorical", dtype, fill_na=fill))
    assert encoder.tokens("c") == ("0", "1")
    assert encoder.transform(data).categorical[:, 0].tolist() == [1, 1, 2, 1]


def test_blanks_and_unicode_meet_in_a_shared_vocabulary() -> None:
    data = batch(
        item=pa.array([" i5", "i3 ", "cafe\u0301"]), seq=pa.array(["i3, i5", "café", "i5"])
    )
    shared = feature("seq", "sequence", "str", share_embedding="item")
    encoder = fit(data, feature("item", "categorical", "str"), shared)
    assert encoder.tokens("item") == ("i5", "café", "i3")


def test_a_shared_vocabulary_without_a_common_id_is_refused() -> None:
    item = feature("item", "categorical", "str")
    shared = feature("seq", "sequence", "str", share_embedding="item")
    data = batch(item=pa.array(["i1", "i2"]), seq=pa.array(["1,2", "2"]))
    with pytest.raises(UserError, match="not one of its ids") as raised:
        fit(data, item, shared)
    assert (raised.value.column, raised.value.value) == ("seq", "1")
    fit(batch(item=pa.array(["i1"]), seq=pa.array([""])), item, shared)  # nothing to compare
    fit(batch(item=pa.array(["unknown"]), seq=pa.array(["click"])), item, shared)  # a constant


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("[8, 9", "an incomplete list"),
        ("8, 9]", "an incomplete list"),
        ("[[1, 2], [3]]", "a list within a list"),
        ("{8: 1, 9: 2}", "a mapping"),
        ('{"a": 1}', "not a list that can be read"),
        ("[b'a', b'b']", "not a list that can be read"),
        ('["a\\ud83d"]', "not a list that can be read"),
        ("[1 2 3 ... 8 9]", "a list that was abbreviated"),
    ],
)
def test_malformed_lists_are_refused(row: str, problem: str) -> None:
    with pytest.raises(UserError, match=f"column seq, row 1: {problem}"):
        fit(batch(seq=pa.array(["1,2", row])), feature("seq", "sequence", "str"))


@pytest.mark.parametrize(
    ("row", "splitter", "tokens"),
    [
        ("['a' 'b']", ",", ["a", "b"]),
        ("['it\\'s', \"a,b\"]", ",", ["it's", "a,b"]),
        ('["caf\\u00e9", "x]"]', ",", ["café", "x]"]),
        ("[mother's day, xmas]", ",", ["mother's day", "xmas"]),
        ("[8|9]", "|", ["8", "9"]),
        ("[8, 9]", "|", ["8", "9"]),
        ("[new york, paris]", " ", ["new york", "paris"]),
        ("(8,)", ",", ["8"]),
        ("[8. 9.]", ",", ["8", "9"]),
        ("(not set)", ",", ["(not set)"]),
        ("(not set),(direct)", ",", ["(not set)", "(direct)"]),
        ("[a],[b]", ",", ["[a]", "[b]"]),
        ("[sale] x,[new] y", ",", ["[sale] x", "[new] y"]),
        ("[]", ",", []), ("{}", ",", []), ("()", ",", []), ("[ ]", ",", []), ("NULL", ",", []),
    ],
)  # fmt: skip
def test_lists_written_as_text(row: str, splitter: str, tokens: list[str]) -> None:
    spec = feature("seq", "sequence", "str", splitter=splitter)
    encoder = fit(batch(seq=pa.array([row, None, "z"])), spec)
    known = encoder.tokens("seq")
    assert known is not None
    rows = encoder.transform(batch(seq=pa.array([row])))
    assert [known[i - 1] for i in rows.sequences["seq"].values] == tokens


def test_null_events_are_left_out_and_counted() -> None:
    text = batch(seq=pa.array(["1,NULL,2", "", "nan", ",1,", None]))
    lists = batch(seq=pa.array([["1", None, "2"], [], ["NaN"], [None, "1", ""], None]))
    for data, nulls in ((text, 3), (lists, 4)):
        encoder, report = fit(data, feature("seq", "sequence", "str")), EncodingReport()
        rows = encoder.transform(data, report=report)
        assert rows.sequences["seq"].lengths.tolist() == [2, 0, 0, 1, 0]
        assert (report.null_events["seq"], report.values["seq"]) == (nulls, 3)


def test_a_null_event_is_an_unknown_id_where_histories_may_be_aligned() -> None:
    data = batch(
        seq=pa.array([["7", None, "8"]]),
        outcome=pa.array(["a,b,NULL"]),
        prices=pa.array(["1,NA,3"]),
        times=pa.array([[1.0, 2.0, 3.0]]),
    )
    features = (
        feature("seq", "sequence", "str"),
        feature("outcome", "sequence", "str"),
        feature("prices", "sequence", "float"),
        feature("times", "time", "float", splitter=","),
    )
    report = EncodingReport()
    rows = fit(data, *features).transform(data, report=report)
    assert rows.sequences["seq"].values.tolist() == [1, 3, 2]
    assert rows.sequences["outcome"].values.tolist() == [1, 2, 3]
    assert rows.sequences["prices"].values.tolist() == [1.0, 0.0, 3.0]
    assert report.unseen_shares() == {"seq": 0.0, "outcome": 0.0}
    assert report.null_events == {"seq": 1, "outcome": 1}


def test_na_values_of_the_data_set_replace_the_default_ones() -> None:
    options = {"na_values": as_na_values([-1, -0.1, -2.0, "none"])}
    data = batch(
        c=pa.array(["NA", "none", "-1", "5"]),
        seq=pa.array(["1,-1", "NA", "none", "-1"]),
        n=pa.array([-1.0, 0.0, 4.0, 2.0]),
        narrow=pa.array([0.0, -0.1, 1.0, 2.0], pa.float32()),
        whole=pa.array([-2.0, 5.0, 6.0, 7.0]),
    )
    features = (
        feature("c", "categorical", "str"),
        feature("seq", "sequence", "str"),
        feature("n", "numeric", "float", normalizer="MinMaxScaler"),
        feature("narrow", "numeric", "float"),
        feature("whole", "categorical", "int"),
    )
    encoder, report = fit(data, *features, **options), EncodingReport()
    rows = encoder.transform(data, report=report)
    assert encoder.tokens("c") == ("5", "NA")  # Namibia
    assert encoder.tokens("seq") == ("1", "NA")
    np.testing.assert_array_equal(rows.numeric[:, 0], np.float32([np.nan, 0, 1, 0.5]))
    np.testing.assert_array_equal(rows.numeric[:, 1], np.float32([0, np.nan, 1, 2]))
    assert encoder.tokens("whole") == ("5", "6", "7")
    assert report.missing == {"c": 2, "n": 1, "narrow": 1, "whole": 1}
    with pytest.raises(ValueError, match=r"unquoted null"):
        as_na_values([None])


def test_the_default_markers_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert {"", *NA_VALUES} == STR_NA_VALUES | {"\\N"}


def test_markers_in_a_csv_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n,clicked\nNULL,0\n3,1\n\\N,0\n7,1\n")
    table = pa.Table.from_batches(list(open_source(path, {"n": "float"}).batches()))
    theirs = pd.read_csv(path, na_values=["\\N"])["n"]
    np.testing.assert_array_equal(table["n"].to_numpy(), theirs.to_numpy())


def test_days_of_floats_and_of_integers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One missing id makes a day's ids floats; the others' are integers."""
    days = tmp_path / "days"
    days.mkdir()
    rng = np.random.default_rng(0)
    items = rng.integers(1, 30, (4, 50)) + LARGE
    for day, values in enumerate(items):
        array = pa.array(values) if day % 2 else pa.array([None, *map(float, values[1:])])
        table = pa.table({"item": array, "seq": [f"{v}" for v in values], "clicked": [0, 1] * 25})
        pq.write_table(table, days / f"{day}.parquet")
    data = dataset(
        tmp_path / "out", days,
        feature("item", "categorical", "str"),
        feature("seq", "sequence", "str", share_embedding="item"),
    )  # fmt: skip
    done = prepare(data)
    known = set(items.ravel()[:180].tolist())
    assert done.encoder.features["item"].vocab_size == len(known) + 2
    shares = done.report["valid"].unseen_shares()
    assert shares["seq"] == np.mean([v not in known for v in items.ravel()[180:].tolist()])
    printed = " ".join(capsys.readouterr().err.split())
    assert "valid: values that are not in the vocabulary" in printed
    assert "no row contains the splitter ','" in printed


@pytest.mark.parametrize("ids_as", ["int64", "float64", "text"])
def test_check_against_names_what_the_other_file_does_not_have(tmp_path: Path, ids_as: str) -> None:
    rng = np.random.default_rng(1)
    train, test = rng.integers(0, 40, 300), rng.integers(20, 60, 200)
    pq.write_table(pa.table({"item": train, "seq": [f"{v},{v}" for v in train]}), tmp_path / "a")
    item = CATEGORIES[ids_as](test.tolist())
    pq.write_table(pa.table({"item": item, "seq": [f"[{v}, {v}]" for v in test]}), tmp_path / "b")
    found = check(tmp_path / "b", tmp_path / "a")
    share = float((~pd.Series(test).isin(train)).mean())
    assert found.unseen == {"item": pytest.approx(share), "seq": pytest.approx(share)}
    assert found.columns["seq"].kind == "sequences"
    assert found.as_dict()["unseen"] == found.unseen


def scored(ids: pa.Array) -> list[Predictions]:
    where, logits = Where(0), np.arange(len(ids)) - 1.0
    return [Predictions(logits, None, row_ids(ids, NA_VALUES, "ID", where))]


@pytest.mark.parametrize(
    "ids", [pa.array([LARGE, LARGE + 1, 7.0]), pa.array([f"{LARGE}.0", f" {LARGE + 1}", "7"])]
)
def test_ids_of_any_type_meet_those_of_a_sample(tmp_path: Path, ids: pa.Array) -> None:
    sample, output = tmp_path / "sample.csv", tmp_path / "out.csv"
    sample.write_text(f"ID,y\n7,0\n{LARGE + 1},0\n{LARGE},0\n")
    write_submission(iter(scored(ids)), output, sample=read_sample(sample), header=("ID", "y"))
    written = pd.read_csv(output, dtype={"ID": str})
    assert written["ID"].tolist() == ["7", str(LARGE + 1), str(LARGE)]
    np.testing.assert_allclose(written["y"], 1 / (1 + np.exp([-1.0, 0.0, 1.0])))
    sample.write_text("ID,y\n7,0\n7.0,0\n8,0\n")
    with pytest.raises(UserError, match="an id is repeated in the sample"):
        write_submission(iter(scored(ids)), output, sample=read_sample(sample), header=("ID", "y"))


def test_large_ids_of_floats_are_written_in_full(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    write_submission(
        iter(scored(pa.array([float(LARGE), 5.0]))), output, sample=None, header=("ID", "y")
    )
    assert output.read_text().splitlines()[1].startswith(f"{LARGE},")
