"""Data sets that go to FuxiCTR's files and come back: same indices, same numbers, same rows."""

from __future__ import annotations

import errno
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tossctr.config.schema import DatasetConfig, Experiment, TrainingConfig
from tossctr.data.encoded.feature_map import FuxiMap
from tossctr.data.prepare import Prepared, prepare
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.opening import open_source
from tossctr.errors import UserError
from tossctr.families.experiment import load_dataset
from tossctr.files import locked
from tossctr.interop.formats import Format
from tossctr.interop.fuxictr_export import Export, export, feature_map
from tossctr.models import build_model
from tossctr.models.deepfm import DeepFMConfig
from tossctr.runs.run import Run
from tossctr.training.networks import Network

CONFIG = """
raw:
    train_data: data/train.parquet
    test_data: data/test.parquet
    id_col: ID
    valid_split: {method: stratified, fraction: 0.25}
    label_col: {name: clicked, dtype: float}
    feature_cols:
        - {name: item, dtype: str, type: categorical, source: ad}
        - {name: history, dtype: str, type: sequence, share_embedding: item}
        - {name: pages, dtype: str, type: sequence, max_len: 4}
        - {name: first, dtype: str, type: sequence, max_len: 3, truncating: post}
        - {name: price, dtype: float, type: numeric, normalizer: MinMaxScaler}
        - {name: user, dtype: str, type: meta}
        - {name: at, dtype: float, type: time}
        - {name: times, dtype: float, type: time, splitter: ","}
        - {name: prices, dtype: float, type: sequence, normalizer: StandardScaler}

encoded:
    data_format: FORMAT
    rebuild_dataset: false
    train_data: export/train.SUFFIX
    valid_data: export/valid.SUFFIX
    test_data: export/test.SUFFIX
    id_col: ID
"""
TIMES = """    feature_cols:
        - {name: item, dtype: str, type: categorical}
        - {name: at, dtype: float, type: time}
        - {name: times, dtype: float, type: time, splitter: ","}
        - {name: prices, dtype: float, type: sequence, normalizer: StandardScaler}
"""
FORMS = [(Format.H5, "h5"), (Format.PARQUET, "parquet")]


def raw_table(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    some = rng.random(rows) < 0.1

    def joined(longest: int) -> list[str]:
        return [",".join(map(str, rng.integers(1, 30, n))) for n in rng.integers(0, longest, rows)]

    return pa.table(
        {
            "item": pa.array([str(i) for i in rng.integers(1, 40, rows)], mask=some),
            "history": joined(9),
            "pages": joined(9),
            "first": joined(6),
            "price": pa.array(rng.normal(size=rows), mask=some),
            "user": [f"u{i}" for i in rng.integers(0, 9, rows)],
            "at": np.arange(rows) * 1.0,
            "times": joined(5),
            "prices": joined(5),
            "clicked": (np.arange(rows) % 3 == 0).astype(int),
        }
    )


def configs(root: Path, suffix: str) -> Path:
    folder = root / "configs"
    folder.mkdir(exist_ok=True)
    text = CONFIG.replace("FORMAT", suffix).replace("SUFFIX", suffix)
    (folder / "dataset_config.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetConfig, Prepared]:
    root = tmp_path_factory.mktemp("project")
    (root / "data").mkdir()
    pq.write_table(raw_table(400, 1), root / "data/train.parquet")
    test = raw_table(60, 2).drop_columns(["clicked"])
    ids = pa.array([f"TEST_{i}" for i in range(60)])
    pq.write_table(test.add_column(0, "ID", ids), root / "data/test.parquet")
    dataset = load_dataset(configs(root, "h5"), "raw")
    return root, dataset, prepare(dataset)


def same_rows(ours: EncodedRows, theirs: EncodedRows, skip: tuple[str, ...] = ()) -> None:
    """Every field of `theirs` is in `ours`, with equal values."""
    for name in theirs.features.names("categorical"):
        a, b = (
            r.categorical[:, r.features.names("categorical").index(name)] for r in (ours, theirs)
        )
        np.testing.assert_array_equal(a, b)
    rows = np.arange(len(ours))
    np.testing.assert_array_equal(ours.numbers(rows), theirs.numbers(rows))  # missing ones filled
    np.testing.assert_array_equal(ours.meta, theirs.meta)
    for name, ragged in theirs.sequences.items():
        if name not in skip:
            np.testing.assert_array_equal(ours.sequences[name].values, ragged.values)
            np.testing.assert_array_equal(ours.sequences[name].offsets, ragged.offsets)
    assert ours.label is not None
    assert theirs.label is not None
    np.testing.assert_array_equal(ours.label, theirs.label)


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_an_exported_data_set_prepares_to_the_same_rows(
    raw: tuple[Path, DatasetConfig, Prepared], form: Format, suffix: str
) -> None:
    root, dataset, data = raw
    rows = export(data, dataset, root / "export", form)
    assert rows == {"train": len(data.train), "valid": len(data.valid), "test": 60}
    encoded = load_dataset(configs(root, suffix), "encoded")
    again = prepare(encoded)
    cut = ("pages", "first")  # the export cuts at max_len, the raw store does not
    same_rows(data.train, again.train, cut)
    same_rows(data.valid, again.valid, cut)
    everything = np.arange(len(again.train))
    ours, theirs = data.train.take(everything), again.train.take(everything)
    for name in cut:
        np.testing.assert_array_equal(ours.sequences[name].values, theirs.sequences[name].values)
    for field in again.encoder.features.fields:
        assert field.vocab_size == data.encoder.features[field.name].vocab_size


def test_an_export_replaces_only_what_exports_wrote_and_all_or_nothing(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dataset, data = raw
    own = tmp_path / "train.parquet"
    own.write_text("ten million rows")
    with pytest.raises(UserError, match=r"train\.parquet"):
        export(data, dataset, tmp_path, Format.PARQUET)
    assert [*tmp_path.iterdir()] == [own]
    assert own.read_text() == "ten million rows"
    folder = tmp_path / "export"
    for _ in range(2):
        export(data, dataset, folder, Format.PARQUET)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Export, "write_maps", full)  # the last of its files
    with pytest.raises(UserError, match=r"cannot be written: No space left.*free some space"):
        export(data, dataset, folder, Format.PARQUET, splits=["valid"], max_len=1)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with (
        locked(folder / ".export.lock", "it"),
        multiprocessing.get_context("fork").Pool(1) as pool,
    ):
        line = pool.apply(_refused, (data, dataset, folder))
    assert "is using the export" in line


def _refused(data: Prepared, dataset: DatasetConfig, folder: Path) -> str:
    try:
        export(data, dataset, folder, Format.PARQUET)
    except UserError as error:
        return error.line()
    return ""


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_our_own_files_hold_times_too(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path, form: Format, suffix: str
) -> None:
    _, dataset, data = raw
    export(data, dataset, tmp_path / "export", form)
    folder = configs(tmp_path, suffix)
    with (folder / "dataset_config.yaml").open("a") as file:
        file.write(TIMES)
    again = prepare(load_dataset(folder, "encoded")).train
    np.testing.assert_array_equal(again.times, data.train.times)
    for name, ragged in (
        ("times", again.time_sequences["times"]),
        ("prices", again.sequences["prices"]),
    ):
        ours = {**data.train.sequences, **data.train.time_sequences}[name]
        np.testing.assert_array_equal(ragged.values, ours.values)
        np.testing.assert_array_equal(ragged.offsets, ours.offsets)


def untrained(dataset: DatasetConfig, data: Prepared) -> Run:
    torch.manual_seed(0)
    features = data.encoder.features.with_lengths(dataset)
    config = DeepFMConfig(embedding_dim=4)
    model = build_model("DeepFM", features, config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    experiment = Experiment(
        expid="x",
        model="DeepFM",
        dataset=dataset,
        training=TrainingConfig(),
        hyperparameters=config,
    )
    return Run(dataset.data_root, experiment, data.encoder, features, Network(model, None), {})


def scored(run: Run, path: Path) -> tuple[list[str], Any]:
    parts = list(run.logits(path, device=torch.device("cpu"), id_col="ID", batch_rows=25))
    ids = [i for part in parts if part.id is not None for i in part.id.to_pylist()]
    return ids, np.concatenate([part.logit for part in parts])


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_an_encoded_file_scores_like_the_raw_one(
    raw: tuple[Path, DatasetConfig, Prepared], form: Format, suffix: str
) -> None:
    root, dataset, data = raw
    export(data, dataset, root / "export", form)
    run = untrained(dataset, data)
    ids, logits = scored(run, root / "data/test.parquet")
    assert len(ids) == len(np.unique(logits)) == 60
    again, same = scored(run, root / f"export/test.{suffix}")
    assert again == ids
    np.testing.assert_array_equal(same, logits)

    encoded = load_dataset(configs(root, suffix), "encoded")
    other = untrained(encoded, prepare(encoded))
    assert scored(other, root / f"export/test.{suffix}")[0] == ids
    with pytest.raises(UserError, match="the indices next to it cannot be interpreted"):
        scored(other, root / "data/test.parquet")


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_a_file_of_another_vocabulary_is_refused(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path, form: Format, suffix: str
) -> None:
    root, dataset, data = raw
    run = untrained(dataset, data)
    export(data, dataset, tmp_path / "export", form)
    fewer = dataset.model_copy(update={"max_rows": 200, "data_root": tmp_path})
    stale = prepare(fewer)
    Export.of(stale, fewer).write_raw(root / "data/test.parquet", tmp_path / f"test.{suffix}")
    with pytest.raises(UserError) as error:
        scored(run, tmp_path / f"test.{suffix}")
    assert f"test.{suffix}: was made with another vocabulary" in error.value.line()
    assert "tossctr export" in error.value.line()

    # The same where training would mix two: valid of one vocabulary, train of another.
    Export.of(stale, fewer).write_rows(stale.valid, tmp_path / f"export/valid.{suffix}")
    mixed = load_dataset(configs(tmp_path, suffix), "encoded")
    with pytest.raises(UserError, match=f"valid.{suffix}: was made with another vocabulary"):
        prepare(mixed)


def test_raw_and_encoded_files_are_not_mistaken_for_each_other(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path
) -> None:
    _, dataset, data = raw
    export(data, dataset, tmp_path, Format.PARQUET)
    changed = {"train_data": tmp_path / "train.parquet", "data_root": tmp_path}
    with pytest.raises(UserError, match=r"holds indices.*rebuild_dataset: false"):
        prepare(dataset.model_copy(update=changed))


# Files as FuxiCTR makes them: no hash, but a feature map next to them.
TWO = {
    "dataset_id": "tiny",
    "labels": ["click"],
    "features": [
        {"item": {"type": "categorical", "source": "", "padding_idx": 0, "vocab_size": 6}},
        {
            "seq": {
                "type": "sequence",
                "source": "",
                "feature_encoder": "layers.MaskedSumPooling()",
                "share_embedding": "item",
                "padding_idx": 0,
                "max_len": 4,
                "vocab_size": 6,
            }
        },
        {"price": {"type": "numeric", "source": ""}},
        {"user": {"type": "meta"}},
    ],
}
TWO_ROWS: dict[str, Any] = {
    "item": [1, 2],
    "seq": [[1, 2, 0, 0]] * 2,
    "price": [0.0, 1],
    "user": [1, 2],
    "click": [0, 1],
}
# FuxiCTR 1: OOV is 0 everywhere, PAD the last index of a sequence's own vocabulary.
ONE = {
    "dataset_id": "tiny",
    "num_features": 14,
    "feature_specs": {
        "item": {"type": "categorical", "source": "", "vocab_size": 5, "index": 0},
        "seq": {
            "type": "sequence",
            "source": "",
            "encoder": "MaskedSumPooling",
            "padding_idx": 5,
            "max_len": 4,
            "vocab_size": 6,
            "index": [1, 2, 3, 4],
        },
        "price": {"type": "numeric", "source": "", "index": 5},
    },
}
TINY = """
tiny:
    data_format: h5
    train_data: data/tiny/train.h5
    valid_data: data/tiny/train.h5
    label_col: {name: click}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., DatasetConfig]:
    def make(feature_map: dict[str, Any], config: str = TINY, **columns: Any) -> DatasetConfig:
        folder = tmp_path / "data/tiny"
        folder.mkdir(parents=True)
        (folder / "feature_map.json").write_text(json.dumps(feature_map))
        with h5py.File(folder / "train.h5", "w") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=np.array(values))
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs/dataset_config.yaml").write_text(config)
        return load_dataset(tmp_path / "configs", "tiny")

    return make


@pytest.mark.parametrize("front", [True, False])
def test_files_of_fuxictr_2_keep_their_indices(
    tiny: Callable[..., DatasetConfig], front: bool
) -> None:
    seq = [[0, 0, 3, 5], [1, 2, 3, 4], [0, 0, 0, 0], [0, 1, 0, 2]]
    if not front:
        seq = [row[::-1] for row in seq]
    rows = prepare(
        tiny(
            TWO, item=[1, 5, 4, 2], seq=seq, price=[0.5, 1, 2, 3], user=[7, 7, 8, 8],
            click=[0.0, 1, 0, 1],
        )
    ).train  # fmt: skip
    assert rows.categorical[:, 0].tolist() == [1, 5, 4, 2]
    expected = [[3, 5], [1, 2, 3, 4], [], [1, 0, 2]]
    if not front:
        expected = [row[::-1] for row in expected]
    ragged = rows.sequences["seq"]
    assert [
        ragged.values[a:b].tolist()
        for a, b in zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)
    ] == expected
    assert rows.numeric[:, 0].tolist() == [0.5, 1, 2, 3]
    assert rows.meta[:, 0].tolist() == [7, 7, 8, 8]
    seq_field = rows.features["seq"]
    assert (seq_field.vocab_size, seq_field.share_embedding) == (6, "item")
    assert seq_field.feature_encoder == "layers.MaskedSumPooling()"


def test_files_of_fuxictr_1_come_out_with_pad_first_and_oov_last(
    tiny: Callable[..., DatasetConfig],
) -> None:
    rows = prepare(
        tiny(
            ONE, item=[1, 0, 4], seq=[[5, 5, 3, 0], [1, 2, 3, 4], [5, 5, 5, 5]],
            price=[1.0, 2, 3], click=[0, 1, 0],
        )
    ).train  # fmt: skip
    assert rows.categorical[:, 0].tolist() == [1, 5, 4]
    assert rows.features["item"].vocab_size == 6
    assert rows.sequences["seq"].values.tolist() == [3, 5, 1, 2, 3, 4]
    assert rows.sequences["seq"].offsets.tolist() == [0, 2, 6, 6]
    assert rows.features["seq"].vocab_size == 6


def test_the_config_chooses_among_the_map_and_cannot_contradict_it(
    tiny: Callable[..., DatasetConfig], tmp_path: Path
) -> None:
    features = "    feature_cols: [{name: item, type: TYPE, dtype: str, embedding_dim: 3}]\n"
    dataset = tiny(TWO, TINY + features.replace("TYPE", "categorical"), **TWO_ROWS)
    (item,) = dataset.features
    assert (item.name, item.remap, item.vocab_size, item.embedding_dim) == ("item", False, 6, 3)
    for wrong, said in (("numeric", "is categorical in feature_map.json"), ("meta", "categorical")):
        text = TINY + features.replace("TYPE", wrong)
        (tmp_path / "configs/dataset_config.yaml").write_text(text)
        with pytest.raises(UserError, match=said):
            load_dataset(tmp_path / "configs", "tiny")
    text = TINY + features.replace("TYPE", "categorical").replace("item", "itme")
    (tmp_path / "configs/dataset_config.yaml").write_text(text)
    with pytest.raises(UserError, match="did you mean item"):
        load_dataset(tmp_path / "configs", "tiny")


def test_what_an_encoded_data_set_lacks_is_named(
    tiny: Callable[..., DatasetConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "data/tiny"
    tiny(TWO, **TWO_ROWS)

    def failing() -> str:
        with pytest.raises(UserError) as error:
            prepare(load_dataset(tmp_path / "configs", "tiny"))
        return error.value.line()

    pretrained = {**TWO, "features": [{"item": {"type": "embedding", "pretrain_dim": 2}}]}
    (folder / "feature_map.json").write_text(json.dumps(pretrained))
    assert "is not supported" in failing()
    (folder / "feature_map.json").write_text("[]")
    assert "feature_map.json" in failing()
    (folder / "feature_map.json").unlink()
    assert "the indices next to it cannot be interpreted" in failing()
    (folder / "feature_map.json").write_text(json.dumps(TWO))
    with h5py.File(folder / "train.h5", "a") as file:
        del file["seq"]
    assert "no column 'seq'" in failing()
    (folder / "train.h5").write_bytes(b"not an H5 file")
    assert "train.h5: not a usable H5 file" in failing()


def test_without_h5py_the_error_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'tossctr\[h5\]'"):
        open_source(tmp_path / "x.h5")


@pytest.mark.parametrize(("start", "stop", "batch_rows"), [(0, None, 7), (3, 11, 4), (50, 60, 5)])
def test_any_range_of_an_h5_file(
    tmp_path: Path, start: int, stop: int | None, batch_rows: int
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["tossctr_vocabulary"] = "abc"
        file["id"] = np.arange(20)
        file["seq"] = np.pad(np.arange(1, 21)[:, None], ((0, 0), (2, 0)))
        file["name"] = [f"é{i}" for i in range(20)]
    source = open_source(tmp_path / "x.h5", {"name": "str", "id": "int", "seq": "int"})
    batches = list(source.batches(start=start, stop=stop, batch_rows=batch_rows))
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    found = [row for batch in batches for row in batch.to_pylist()]
    expected = range(20)[start:stop]
    assert found == [{"name": f"é{i}", "id": i, "seq": [i + 1]} for i in expected]


def test_a_failed_export_leaves_the_earlier_file(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path
) -> None:
    root, dataset, data = raw
    written = Export.of(data, dataset)
    written.write_raw(root / "data/test.parquet", tmp_path / "test.h5")
    before = (tmp_path / "test.h5").read_bytes()
    bad = pq.read_table(root / "data/test.parquet").to_pylist()
    bad[50]["price"] = float("inf")
    pq.write_table(pa.Table.from_pylist(bad), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="price"):
        written.write_raw(tmp_path / "bad.parquet", tmp_path / "test.h5")
    assert (tmp_path / "test.h5").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.parquet", "test.h5"]


def test_an_export_replaces_only_exports(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path
) -> None:
    _, dataset, data = raw
    form = Format("fuxictr-parquet")
    for name in ("train.parquet", "feature_map.json"):
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.table({"mine": [1]}), folder / name)
        before = (folder / name).read_bytes()
        with pytest.raises(UserError, match=r"TossCTR did not write it.*--force"):
            export(data, dataset, folder, form)
        assert [p.name for p in folder.iterdir()] == [name]
        assert (folder / name).read_bytes() == before
        rows = export(data, dataset, folder, form, force=True)
        assert export(data, dataset, folder, form) == rows
    vocabulary = folder / "feature_vocab.json"
    vocabulary.write_text("{}")  # next to files of an export, but the user's
    with pytest.raises(UserError, match=r"feature_vocab\.json: exists, and TossCTR did not"):
        export(data, dataset, folder, form)
    assert vocabulary.read_text() == "{}"


def test_the_feature_map_counts_as_fuxictr_does(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path
) -> None:
    _, dataset, data = raw
    Export.of(data, dataset).write_maps(tmp_path)
    fuxi = FuxiMap.read(tmp_path / "feature_map.json")
    sizes = {f.name: f.vocab_size or 0 for f in data.encoder.features.fields}
    longest = max(int(part.sequences["history"].lengths.max()) for part in (data.train, data.valid))
    assert list(fuxi.features) == ["item", "history", "pages", "first", "price", "user"]
    assert fuxi.num_fields == 5
    assert fuxi.total_features == sizes["item"] + sizes["pages"] + sizes["first"] + 1
    assert fuxi.input_length == 1 + longest + 4 + 3 + 1 + 1
    index = fuxi.column_index
    assert index["item"] == 0
    assert index["history"] == list(range(1, 1 + longest))
    assert index["clicked"] == fuxi.input_length
    assert fuxi.sum_emb_out_dim(8) == 5 * 8
    content = json.loads((tmp_path / "feature_map.json").read_text())
    assert list(content) == [
        "dataset_id", "num_fields", "total_features", "input_length", "labels", "features",
    ]  # fmt: skip
    assert content["features"][0] == {
        "item": {
            "type": "categorical", "source": "ad", "padding_idx": 0, "vocab_size": sizes["item"],
        }
    }  # fmt: skip
    assert content["features"][-1] == {"user": {"type": "meta"}}
    vocabulary = json.loads((tmp_path / "feature_vocab.json").read_text())
    assert vocabulary["item"]["__PAD__"] == 0
    assert vocabulary["item"]["__OOV__"] == sizes["item"] - 1
    assert vocabulary["item"] == vocabulary["history"]
    tokens = data.encoder.tokens("item")
    assert tokens is not None
    assert all(vocabulary["item"][token] == i for i, token in enumerate(tokens, start=1))


def test_times_count_in_the_width_only_where_asked(
    raw: tuple[Path, DatasetConfig, Prepared],
) -> None:
    _, dataset, data = raw
    fields = data.encoder.features.with_lengths(dataset, 5).fields
    fuxi = feature_map(data.encoder.features, fields, {})
    assert fuxi.sum_emb_out_dim(8) == 8 * 8
    assert fuxi.sum_emb_out_dim(8, without_time=True) == 6 * 8


def test_an_id_that_h5_cannot_hold_is_named(
    raw: tuple[Path, DatasetConfig, Prepared], tmp_path: Path
) -> None:
    _, dataset, data = raw
    ids = pa.array(["a", "b\0c", *map(str, range(58))])
    test = raw_table(60, 2).drop_columns(["clicked"]).add_column(0, "ID", ids)
    pq.write_table(test, tmp_path / "test.parquet")
    written = Export.of(data, dataset)
    with pytest.raises(UserError, match=r"test\.parquet, column ID, row 1: an id with a NUL"):
        written.write_raw(tmp_path / "test.parquet", tmp_path / "test.h5")
    assert not (tmp_path / "test.h5").exists()
    written.write_raw(tmp_path / "test.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["ID"].to_pylist() == ids.to_pylist()
