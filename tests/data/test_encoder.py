from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from frames import FEATURES, dataset, feature, raw_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from tossctr.config.schema import DatasetConfig, FeatureConfig
from tossctr.data.encoder import Encoder, EncodingReport
from tossctr.data.encoding.statistics import Stats
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError

HERE = Path()


def config(*features: FeatureConfig, **options: Any) -> DatasetConfig:
    return dataset(HERE, HERE / "train.parquet", *features, **options)


def batch(**columns: Any) -> pa.RecordBatch:
    rows = len(next(iter(columns.values())))
    arrays = {k: v if isinstance(v, pa.Array) else pa.array(v) for k, v in columns.items()}
    return pa.RecordBatch.from_pydict({"clicked": pa.array([0] * rows), **arrays})


def fit(data: pa.RecordBatch, *features: FeatureConfig, **options: Any) -> Encoder:
    return Encoder.fit(config(*features, **options), [data])


def lists(rows: EncodedRows, name: str) -> list[list[float]]:
    ragged = {**rows.sequences, **rows.time_sequences}[name]
    bounds = zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)
    return [ragged.values[a:b].tolist() for a, b in bounds]


# --- vocabularies ---


def plain_vocabulary(tokens: list[str], least: int) -> dict[str, int]:
    counts = Counter(tokens)
    kept = sorted((t for t in counts if counts[t] >= least), key=lambda t: (-counts[t], t))
    return {token: index for index, token in enumerate(kept, start=1)}


token_lists = st.lists(
    st.none()
    | st.lists(st.integers(0, 12) | st.sampled_from([99999, 1 << 40]) | st.just("x"), max_size=6),
    min_size=1,
    max_size=20,
)


@settings(max_examples=80, deadline=None)
@given(seen=token_lists, new=token_lists, least=st.integers(1, 4), letters=st.booleans())
def test_sequences_equal_plain_python(
    seen: list[list[Any] | None], new: list[list[Any] | None], least: int, letters: bool
) -> None:
    def joined(rows: list[list[Any] | None]) -> list[str | None]:
        keep = [None if r is None else [t for t in r if letters or t != "x"] for r in rows]
        return [None if r is None else ",".join(map(str, r)) for r in keep]

    train, later = joined(seen), joined(new)
    split = [t.split(",") if t else [] for t in train]
    vocabulary = plain_vocabulary([t for row in split for t in row], least)
    oov = len(vocabulary) + 1
    spec = feature("seq", "sequence", "str")
    encoder = fit(batch(seq=pa.array(train, pa.string())), spec, min_categr_count=least)
    assert encoder.features["seq"].vocab_size == oov + 1
    report = EncodingReport()
    rows = encoder.transform(batch(seq=pa.array(later, pa.large_string())), report=report)
    expected = [[vocabulary.get(t, oov) for t in r.split(",")] if r else [] for r in later]
    assert lists(rows, "seq") == expected
    assert rows.sequences["seq"].values.dtype == np.uint8
    assert report.unseen["seq"] == sum(row.count(oov) for row in expected)


@settings(max_examples=80, deadline=None)
@given(
    seen=st.lists(st.none() | st.sampled_from(["00", "0", "7", "a", "", "1.0"]), min_size=1),
    new=st.lists(st.none() | st.sampled_from(["00", "0", "7", "a", "", "new"]), min_size=1),
    fill=st.none() | st.sampled_from(["7", "gone"]),
    as_dictionary=st.booleans(),
)
def test_categories_equal_plain_python(
    seen: list[str | None], new: list[str | None], fill: str | None, as_dictionary: bool
) -> None:
    def array(values: list[str | None]) -> pa.Array:
        text = pa.array(values, pa.string())
        return text.dictionary_encode() if as_dictionary else text

    present = [v or fill for v in seen]
    vocabulary = plain_vocabulary([v for v in present if v is not None], 1)
    oov = len(vocabulary) + 1
    encoder = fit(batch(c=array(seen)), feature("c", "categorical", "str", fill_na=fill))
    report = EncodingReport()
    rows = encoder.transform(batch(c=array(new)), report=report)
    assert rows.categorical[:, 0].tolist() == [vocabulary.get(v or fill or "?", oov) for v in new]
    assert report.missing["c"] == sum(not v for v in new)
    assert report.unseen["c"] == sum(bool(v) and v not in vocabulary for v in new)


@pytest.mark.parametrize(
    ("array", "tokens"),
    [
        (pa.array([7, 7, None, -1]), ("7", "-1")),
        (pa.array([7.0, 7.0, float("nan"), 0.1], pa.float32()), ("7", "0.1")),
        (pa.array([True, True, False]), ("true", "false")),
        (pa.array(["07", "07", "7", ""]), ("07", "7")),
    ],
)
def test_each_type_has_one_text(array: pa.Array, tokens: tuple[str, ...]) -> None:
    assert fit(batch(c=array), feature("c", "categorical", "str")).tokens("c") == tokens


def test_dtype_determines_how_text_is_read() -> None:
    text, number = pa.array(["07", "7.0", "7"]), pa.array([7, 7, 7])
    as_int = fit(batch(c=text), feature("c", "categorical", "int"))
    as_float = fit(batch(c=number), feature("c", "categorical", "float"))
    assert as_int.tokens("c") == ("7",)
    assert as_float.tokens("c") == ("7",)
    with pytest.raises(UserError, match=r"column c, row 1: not a whole number \(found 'x'\)"):
        as_int.transform(batch(c=pa.array(["1", "x"])))


@pytest.mark.parametrize(("dtype", "tokens"), [("str", ("07",)), ("int", ("7",))])
def test_csv_text_means_what_parquet_text_means(
    tmp_path: Path, dtype: str, tokens: tuple[str, ...]
) -> None:
    (tmp_path / "rows.csv").write_text("c,clicked\n07,1\n07,0\n")
    stats = Stats.of(config(feature("c", "categorical", dtype)))
    types = {c.name: c.read_as for c in stats.columns}
    source = open_source(tmp_path / "rows.csv", {**types, "clicked": "float"})
    encoder = Encoder.fit(config(feature("c", "categorical", dtype)), source.batches())
    assert (
        encoder.tokens("c")
        == tokens
        == fit(batch(c=["07", "07"]), feature("c", "categorical", dtype)).tokens("c")
    )


def test_the_variance_of_large_numbers() -> None:
    # The naive sum of squares has no digit of this variance left.
    values = 1e8 + np.arange(1000.0)
    spec = feature("x", "numeric", "float", normalizer="StandardScaler")
    rows = fit(batch(x=values), spec).transform(batch(x=values))
    assert abs(float(rows.numeric.std()) - 1) < 1e-6
    assert abs(float(rows.numeric.mean())) < 1e-6


def test_a_shared_vocabulary_counts_both_columns() -> None:
    data = batch(item=["1", "2", "9"], seq=["3,3,3", "2", ""])
    seq = feature("seq", "sequence", "str", share_embedding="item")
    for features in (
        (feature("item", "categorical", "str"), seq),
        (seq, feature("item", "categorical", "str")),
    ):
        encoder = fit(data, *features)
        assert encoder.tokens("item") == encoder.tokens("seq") == ("3", "2", "1", "9")
        rows = encoder.transform(data)
        assert rows.categorical[:, 0].tolist() == [3, 2, 4]
        assert lists(rows, "seq") == [[1, 1, 1], [2], []]
        assert encoder.features["seq"].share_embedding == "item"


def test_indices_that_are_given() -> None:
    spec = feature("c", "categorical", "int", remap=False)
    seq = feature("seq", "sequence", "int", remap=False, share_embedding="c")
    encoder = fit(batch(c=[0, 3, None], seq=["5,1", "", None]), spec, seq)
    assert encoder.features["c"].vocab_size == encoder.features["seq"].vocab_size == 7
    report = EncodingReport()
    rows = encoder.transform(batch(c=[5, 900, None], seq=["0,5", "77", None]), report=report)
    assert rows.categorical[:, 0].tolist() == [5, 6, 6]
    assert lists(rows, "seq") == [[0, 5], [6], []]
    assert report.unseen == {"c": 1, "seq": 1}
    sized = fit(batch(c=[0, 3]), feature("c", "categorical", "int", remap=False, vocab_size=300))
    assert sized.features["c"].vocab_size == 300
    assert sized.transform(batch(c=[3])).categorical.dtype == np.uint16
    with pytest.raises(UserError, match="beyond vocab_size 3"):
        fit(batch(c=[0, 3]), feature("c", "categorical", "int", remap=False, vocab_size=3))
    with pytest.raises(UserError, match="row 1: remap: false, but not an index"):
        fit(batch(c=[0, -3]), spec)


@pytest.mark.parametrize(("size", "dtype"), [(254, np.uint8), (255, np.uint16), (65535, np.uint32)])
def test_ids_take_the_smallest_type(size: int, dtype: type) -> None:
    # `size` tokens, PAD and OOV: the last index is size + 1.
    data = batch(c=list(range(size)), seq=[str(i) for i in range(size)])
    encoder = fit(data, feature("c", "categorical", "int"), feature("seq", "sequence", "int"))
    rows = encoder.transform(data)
    assert rows.categorical.dtype == rows.sequences["seq"].values.dtype == dtype
    assert rows.categorical.max() == size
    assert encoder.transform(batch(c=[-1], seq=["-1"])).categorical[0, 0] == size + 1


def test_large_ids_are_found_by_search() -> None:
    ids = [5, 1 << 50, 123456789, 3]
    encoder = fit(batch(seq=[",".join(map(str, ids))]), feature("seq", "sequence", "int"))
    rows = encoder.transform(batch(seq=["3,4,5", f"{1 << 50},{1 << 51}"]))
    order = {t: i for i, t in enumerate(encoder.tokens("seq") or (), start=1)}
    assert lists(rows, "seq") == [[order["3"], 5, order["5"]], [order[str(1 << 50)], 5]]


# --- numbers ---

numbers = st.lists(
    st.none() | st.just(float("nan")) | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40
)


@settings(max_examples=80, deadline=None)
@given(seen=numbers, new=numbers, fill=st.sampled_from([None, 0.0, -3.5]), cut=st.integers(0, 40))
@pytest.mark.parametrize("scaler", [MinMaxScaler, StandardScaler])
def test_scaling_equals_scikit_learn(
    scaler: type, seen: list[float | None], new: list[float | None], fill: float | None, cut: int
) -> None:
    def filled(values: list[float | None]) -> Any:
        missing = 0.0 if fill is None else fill
        return np.array([missing if v is None or v != v else v for v in values])[:, None]

    spec = feature("x", "numeric", "float", normalizer=scaler.__name__, fill_na=fill)
    data = batch(x=pa.array(seen, pa.float32()))
    parts = [data.slice(0, cut), data.slice(cut)]
    encoder = Encoder.fit(config(spec), parts)
    expected = scaler().fit(filled(seen)).transform(filled(new))
    assume(np.abs(expected).max() < 1e38)  # beyond float32, it is refused
    rows = encoder.transform(batch(x=pa.array(new, pa.float64())))
    scale = max(1.0, float(np.abs(expected).max()))
    ours = rows.numbers(np.arange(len(new)))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * scale)
    kept = [fill is None and (v is None or v != v) for v in new]  # for trees
    assert np.isnan(rows.numeric[:, 0]).tolist() == kept


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2, None], pa.int8()),
        pa.array([1, 2, None], pa.uint64()),
        pa.array([1, 2, None], pa.float16()),
        pa.array([1, 2, None], pa.float64()),
        pa.array([1, 2, None]).cast(pa.decimal128(22, 2)),
    ],
)
def test_any_number_type_is_numeric(array: pa.Array) -> None:
    rows = fit(batch(x=array), feature("x", "numeric", "float")).transform(batch(x=array))
    assert rows.numbers(np.arange(3))[:, 0].tolist() == [1.0, 2.0, 0.0]


def test_booleans_and_columns_without_values_are_numeric() -> None:
    spec = feature("x", "numeric", "float", normalizer="MinMaxScaler")
    for array, expected in ((pa.array([True, None, False]), [1, 0, 0]), (pa.nulls(2), [0, 0])):
        rows = fit(batch(x=array), spec).transform(batch(x=array))
        assert rows.numbers(np.arange(len(array)))[:, 0].tolist() == expected


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e39])
def test_numbers_that_float32_cannot_hold(value: float) -> None:
    spec = feature("x", "numeric", "float")
    with pytest.raises(UserError, match="column x, row 2") as raised:
        fit(batch(x=[0.0, None, value]), spec)
    assert raised.value.value == value
    with pytest.raises(UserError, match="column x, row 12"):
        fit(batch(x=[0.0]), spec).transform(batch(x=[0.0, 1.0, value]), first_row=10)


def test_text_is_not_numeric() -> None:
    with pytest.raises(UserError, match="column x: holds string, not numbers"):
        fit(batch(x=["1.5"]), feature("x", "numeric", "float"))


def test_number_sequences_share_the_scaler_and_times_have_none() -> None:
    features = (
        feature("price", "numeric", "float", normalizer="MinMaxScaler"),
        feature("prices", "sequence", "float", share_embedding="price"),
        feature("times", "time", "float", splitter="|"),
        feature("at", "time", "float"),
    )
    at = pa.array([10, 20, None], pa.timestamp("s"))
    times = ["1600000000.5| 2", None, "3"]
    data = batch(price=[0.0, 5.0, 10.0], prices=["20,10", "", "0"], times=times, at=at)
    rows = fit(data, *features).transform(data)
    assert rows.numeric[:, 0].tolist() == [0.0, 0.25, 0.5]
    assert lists(rows, "prices") == [[1.0, 0.5], [], [0.0]]
    assert rows.sequences["prices"].values.dtype == np.float32
    assert lists(rows, "times") == [[1600000000.5, 2.0], [], [3.0]]
    assert rows.times[:, 0].tolist() == [10.0, 20.0, 0.0]
    bad = batch(price=[0.0, 1.0], prices=["1", "2,zwei"], times=["", ""], at=at[:2])
    with pytest.raises(UserError, match=r"column prices, row 1: not a number \(found 'zwei'\)"):
        fit(data, *features).transform(bad)


def test_meta_is_carried_as_integers() -> None:
    features = (feature("user", "meta", "int"), feature("group", "meta", "str"))
    data = batch(user=[3, None, 3], group=["a", "b", "a"])
    rows = fit(data, *features).transform(data)
    assert rows.meta[:, 0].tolist() == [3, np.iinfo(np.int64).min, 3]
    assert rows.meta[0, 1] == rows.meta[2, 1] != rows.meta[1, 1]


# --- labels ---


@pytest.mark.parametrize(
    ("labels", "problem"),
    [([0, 1, 2], "not 0 or 1"), ([0, 1, None], "missing"), ([0.0, 1.0, 0.5], "not 0 or 1")],
)
def test_a_bad_label_names_its_row(labels: list[Any], problem: str) -> None:
    data = batch(clicked=labels, x=[1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=rf"column clicked, row 2: the label is {problem}"):
        fit(data, feature("x", "numeric", "float"))


def test_rows_without_labels() -> None:
    encoder = fit(batch(x=[1.0]), feature("x", "numeric", "float"))
    unlabelled = pa.RecordBatch.from_pydict({"x": pa.array([2.0])})
    rows = encoder.transform(unlabelled, labelled=False)
    assert rows.label is None
    assert encoder.columns(labelled=False) == {"x": "float"}
    assert encoder.columns(labelled=True) == {"x": "float", "clicked": "str"}
    with pytest.raises(UserError, match="column clicked: there is no label column"):
        encoder.transform(unlabelled)


def test_no_rows_at_all() -> None:
    data = raw_table(20).to_batches()[0]
    encoder = Encoder.fit(config(*FEATURES), [data])
    rows = encoder.transform(data.slice(0, 0))
    assert len(rows) == 0
    assert rows.numeric.shape == (0, 2)
    assert lists(rows, "seq") == []


# --- the state ---


def test_merged_statistics_do_not_depend_on_the_parts() -> None:
    data = raw_table(200, seed=3).to_batches()[0]
    chosen = config(*FEATURES)
    whole = Encoder.fit(chosen, [data])
    for cuts in ([0, 200], [0, 1, 77, 200], [0, 0, 150, 151, 152, 200]):
        parts = []
        for a, b in pairwise(cuts):
            part = Stats.of(chosen)
            part.update(data.slice(a, b - a))
            parts.append(part)
        total = Stats.of(chosen)
        for part in reversed(parts):
            total.merge(part)
        assert total.rows == 200
        assert Encoder.from_stats(chosen, total).hash == whole.hash


def test_the_saved_encoder_is_the_same(tmp_path: Path) -> None:
    data = raw_table(50).to_batches()[0]
    encoder = Encoder.fit(config(*FEATURES), [data])
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.hash == encoder.hash
    assert loaded.features == encoder.features
    ours, theirs = encoder.transform(data), loaded.transform(data)
    for name in ("categorical", "numeric", "times", "meta", "label"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def spoil(state: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**state, key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 1),
        ("format", "pickle"),
        ("columns", [{"name": "hour"}]),
        ("vocabularies", {}),
        ("vocabularies", {"hour": ["1", "1"], "seq": []}),
        ("vocabularies", {"hour": "abc", "seq": []}),
        ("scalers", {}),
        ("scalers", {"score": {"shift": "x", "scale": 1}}),
        ("extra", 1),
    ],
)
def test_a_hostile_encoder_file_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    encoder = Encoder.fit(config(*FEATURES), raw_table(20).to_batches())
    encoder.save(tmp_path)
    file = tmp_path / "encoder.json"
    file.write_text(json.dumps(spoil(json.loads(file.read_text()), key, value)))
    with pytest.raises(UserError, match=r"encoder\.json: .* another version"):
        Encoder.load(tmp_path)


def test_a_number_filled_with_text_is_refused(tmp_path: Path) -> None:
    # Found by benchmarks/fuzz.py: it failed at the first missing value.
    encoder = Encoder.fit(config(*FEATURES), raw_table(20).to_batches())
    encoder.save(tmp_path)
    file = tmp_path / "encoder.json"
    content = json.loads(file.read_text())
    for column in content["columns"]:
        if column["type"] == "numeric":
            column["fill"] = "\x00"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"has a fill that is not a number"):
        Encoder.load(tmp_path)


def test_a_missing_or_broken_encoder_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        Encoder.load(tmp_path)
    (tmp_path / "encoder.json").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match=r"encoder\.json: is damaged"):
        Encoder.load(tmp_path)


def test_choices_of_training_stay_out_of_the_encoder() -> None:
    data = batch(seq=["1,2", "3"])
    short = feature("seq", "sequence", "str", max_len=5, embedding_dim=8, truncating="post")
    long = feature("seq", "sequence", "str", max_len=9)
    assert fit(data, short).hash == fit(data, long).hash
    bound = fit(data, long).features.with_lengths(config(short))["seq"]
    assert (bound.max_len, bound.truncating, bound.embedding_dim) == (5, "post", 8)


# --- contradictions ---


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ([], "no active features"),
        ([feature("x", "numeric", "str")], "needs dtype: float or int"),
        ([feature("x", "categorical", "str", remap=False)], "needs dtype: int"),
        ([feature("x", "categorical", "str", vocab_size=9)], "vocab_size"),
        ([feature("x", "categorical", "str", normalizer="MinMaxScaler")], "normalizer"),
        ([feature("x", "sequence", "str", fill_na="7")], "fill_na"),
        ([feature("x", "numeric", "float", fill_na="none")], "is not a number"),
        ([feature("x", "meta", "float")], "dtype: int or str"),
        (
            [
                feature("n", "numeric", "float"),
                feature("x", "sequence", "str", share_embedding="n"),
            ],
            "cannot share with n",
        ),
    ],
)
def test_contradicting_options_are_one_line(features: list[FeatureConfig], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        Stats.of(config(*features))


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()])
@pytest.mark.parametrize("name", ["categorical", "sequence", "meta"])
def test_text_that_is_not_utf_8_names_its_column(name: str, kind: pa.DataType) -> None:
    raw = pa.array([b"\xff\xfe", b"1"], pa.binary())
    text = pa.Array.from_buffers(kind, 2, raw.buffers())  # as Parquet gives it, unchecked
    batch = pa.record_batch({"x": text, "clicked": pa.array([0, 1])})
    data = dataset(Path(), Path(), feature("x", name, "str"))
    with pytest.raises(UserError, match="column x"):
        Encoder.fit(data, [batch]).transform(batch)


def test_one_row_of_five_million_events_takes_bounded_memory() -> None:
    events = 5_000_000
    text = pa.array(["7," * (events - 1) + "7", "1,2"])
    batch = pa.record_batch({"seq": text, "clicked": pa.array([0, 1])})
    data = dataset(Path(), Path(), feature("seq", "sequence", "str"))
    tracemalloc.start()
    rows = Encoder.fit(data, [batch]).transform(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.sequences["seq"].lengths.tolist() == [events, 2]
    assert peak < 20 * events  # bytes an event: one int64 of scratch, the ids, and some to spare
