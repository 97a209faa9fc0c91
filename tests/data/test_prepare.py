from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from frames import FEATURES, dataset, feature, raw_table, write
from numpy.typing import NDArray

from tossctr.config.schema import DatasetConfig, ValidSplit
from tossctr.data import prepare as module
from tossctr.data.encoder import Encoder
from tossctr.data.encoding import decode
from tossctr.data.prepare import Prepared, open_prepared, prepare
from tossctr.data.preparing.verify import verify_prepared
from tossctr.data.where import Where
from tossctr.errors import UserError
from tossctr.files import locked

TABLE = raw_table(300, seed=8)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write(TABLE, tmp_path / "train.parquet", row_group_size=70)


def content(folder: Path, *, but: tuple[str, ...] = ("prepare.json",)) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in but
    }


def stamps(folder: Path) -> dict[str, int]:
    return {
        str(p): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.name != "prepare.json"
    }


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_stores_do_not_depend_on_batch_size_or_row_groups(tmp_path: Path, method: str) -> None:
    split = ValidSplit(method=method, fraction=0.2)  # type: ignore[arg-type]
    seen = []
    for i, (batch_rows, group) in enumerate([(4096, 300), (1, 300), (37, 11), (64, 64)]):
        raw = write(TABLE, tmp_path / f"{i}.parquet", row_group_size=group)
        data = dataset(tmp_path / str(i), raw, *FEATURES, valid_split=split)
        seen.append(content(prepare(data, batch_rows=batch_rows).folder))
        verify_prepared(tmp_path / str(i) / "ds")
    assert seen[0].keys() >= {"encoder.json", "train/numeric.npy", "valid/numeric.npy"}
    assert all(other == seen[0] for other in seen[1:])


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_each_row_is_in_one_part_and_only_training_rows_are_fit(
    tmp_path: Path, raw: Path, method: str
) -> None:
    split = ValidSplit(method=method, fraction=0.25)  # type: ignore[arg-type]
    done = prepare(dataset(tmp_path, raw, *FEATURES, valid_split=split, max_rows=201))
    position = {at: row for row, at in enumerate(TABLE["at"].to_pylist())}
    train, valid = ([position[at] for at in rows.times[:, 0]] for rows in (done.train, done.valid))
    assert sorted(train + valid) == list(range(201))
    assert train == sorted(train)
    assert valid == sorted(valid)
    if method == "time":
        assert valid == list(range(151, 201))
    if method == "stratified":
        clicked = np.array(TABLE["clicked"])[valid]
        assert abs(clicked.sum() - 0.25 * 67) < 1
        assert abs((1 - clicked).sum() - 0.25 * 134) < 1
    alone = Encoder.fit(dataset(tmp_path, raw, *FEATURES), TABLE.take(train).to_batches())
    assert done.encoder.hash == alone.hash
    expected = alone.transform(TABLE.take(valid).combine_chunks().to_batches()[0])
    np.testing.assert_array_equal(done.valid.numeric, expected.numeric)
    np.testing.assert_array_equal(
        done.valid.sequences["seq"].values, expected.sequences["seq"].values
    )
    assert done.report["valid"].rows == len(valid)


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_a_label_is_decoded_once_in_each_pass_over_the_file(
    tmp_path: Path, raw: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counting(batch: pa.RecordBatch, name: str, where: Where) -> NDArray[np.float32]:
        decoded.append(batch.num_rows)
        return decode.labels(batch, name, where)

    for where in ("preparing.splits", "encoder", "encoding.statistics"):
        monkeypatch.setattr(f"tossctr.data.{where}.labels", counting)
    split = ValidSplit(method=method, fraction=0.25)  # type: ignore[arg-type]
    prepare(dataset(tmp_path, raw, *FEATURES, valid_split=split))
    fit = 0.75 * len(TABLE) if method == "time" else len(TABLE)  # time: the first rows only
    assert sum(decoded) == fit + len(TABLE)


def test_a_validation_file_of_its_own(tmp_path: Path, raw: Path) -> None:
    other = write(raw_table(50, seed=9), tmp_path / "valid.parquet")
    done = prepare(dataset(tmp_path, raw, *FEATURES, valid_data=other, max_rows=100))
    assert (len(done.train), len(done.valid)) == (100, 50)
    alone = Encoder.fit(dataset(tmp_path, raw, *FEATURES), TABLE.slice(0, 100).to_batches())
    assert done.encoder.hash == alone.hash


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_csv_gives_the_same_as_parquet(tmp_path: Path, raw: Path, method: str) -> None:
    pyarrow.csv.write_csv(TABLE, tmp_path / "train.csv")
    split = ValidSplit(method=method)  # type: ignore[arg-type]
    ours = prepare(dataset(tmp_path / "a", raw, *FEATURES, valid_split=split))
    theirs = prepare(dataset(tmp_path / "b", tmp_path / "train.csv", *FEATURES, valid_split=split))
    np.testing.assert_allclose(ours.train.numeric, theirs.train.numeric, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.train.categorical, theirs.train.categorical)
    np.testing.assert_array_equal(
        ours.valid.sequences["seq"].values, theirs.valid.sequences["seq"].values
    )


def test_large_strings_and_lists_give_the_same(tmp_path: Path, raw: Path) -> None:
    seq = feature("seq", "sequence", "str")
    large = write(raw_table(300, seed=8, large=True), tmp_path / "large.parquet")
    as_lists = [
        None if s is None else [int(t) for t in s.split(",") if t] for s in TABLE["seq"].to_pylist()
    ]
    listed = TABLE.select(["clicked"]).append_column("seq", pa.array(as_lists))
    lists = write(listed, tmp_path / "lists.parquet")
    hashes = {
        prepare(dataset(tmp_path / str(i), path, seq)).encoder.hash
        for i, path in enumerate((raw, large, lists))
    }
    assert len(hashes) == 1


# --- done again, or not ---


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever `prepare` fits."""
    fits: list[int] = []
    fit = module.fit_encoder
    monkeypatch.setattr(module, "fit_encoder", lambda *args: (fits.append(1), fit(*args))[1])
    return fits


def same_rows(a: Prepared, b: Prepared) -> bool:
    return a.encoder.hash == b.encoder.hash and bool(
        np.array_equal(a.train.numeric, b.train.numeric, equal_nan=True)
    )


def test_nothing_is_redone_when_nothing_has_changed(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = counted(monkeypatch)
    data = dataset(tmp_path, raw, *FEATURES)
    first = prepare(data)
    before = stamps(first.folder)
    again = prepare(data)
    assert (len(fits), stamps(first.folder)) == (1, before)
    assert same_rows(first, again)
    assert again.report == first.report
    # The same content under a new time stamp, and then in another place, is the same.
    os.utime(raw, ns=(1, 1))
    prepare(data)
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(raw.read_bytes())
    prepare(dataset(tmp_path, moved, *FEATURES))
    assert (len(fits), stamps(first.folder)) == (1, before)
    prepare(data, force=True)
    assert len(fits) == 2


def test_training_options_of_a_feature_take_effect_without_preparing_again(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = counted(monkeypatch)
    prepare(dataset(tmp_path, raw, feature("seq", "sequence", "str", max_len=5)))
    other = feature(
        "seq",
        "sequence",
        "str",
        max_len=7,
        truncating="post",
        embedding_dim=4,
        feature_encoder="MaskedSumPooling",
    )
    field = prepare(dataset(tmp_path, raw, other)).train.features["seq"]
    assert len(fits) == 1
    assert (field.max_len, field.truncating, field.embedding_dim) == (7, "post", 4)


@pytest.mark.parametrize(
    "options",
    [
        {"min_categr_count": 12},
        {"max_rows": 200},
        {"valid_split": ValidSplit(fraction=0.3)},
        {"valid_split": ValidSplit(method="random", seed=1)},
    ],
)
def test_a_changed_config_is_prepared_again(
    tmp_path: Path, raw: Path, options: dict[str, Any]
) -> None:
    first = prepare(dataset(tmp_path, raw, *FEATURES))
    before = (first.encoder.hash, len(first.train))
    again = prepare(dataset(tmp_path, raw, *FEATURES, **options))
    fresh = prepare(dataset(tmp_path / "fresh", raw, *FEATURES, **options))
    assert (again.encoder.hash, len(again.train)) != before
    assert same_rows(again, fresh)


def test_a_changed_file_is_prepared_again(tmp_path: Path, raw: Path) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    first = prepare(data).encoder.hash
    write(raw_table(300, seed=99), raw, row_group_size=70)
    assert prepare(data).encoder.hash != first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "encoder.json").unlink(),
        lambda folder: (folder / "encoder.json").write_text("{}"),
        lambda folder: (folder / "valid" / "label.npy").unlink(),
        lambda folder: (folder / "train" / "manifest.json").write_text("[]"),
        lambda folder: (folder / "prepare.json").write_text("null"),
        lambda folder: (folder / "prepare.json").write_text('{"version": 1}'),
    ],
)
def test_a_damaged_folder_is_made_again(tmp_path: Path, raw: Path, spoil: Any) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    before = content(prepare(data).folder)
    spoil(tmp_path / "ds")
    assert content(prepare(data).folder) == before


def test_labels_changed_on_disk_are_not_trained_on(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    before = content(prepare(data).folder)
    label = tmp_path / "ds" / "train" / "label.npy"
    written, times = label.read_bytes(), label.stat()
    values = np.frombuffer(written[128:], np.float32)
    label.write_bytes(written[:128] + (1 - values).tobytes())
    os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))
    for look in (lambda: open_prepared(data), lambda: verify_prepared(tmp_path / "ds")):
        with pytest.raises(UserError, match=r"label\.npy: its content has changed"):
            look()
    capsys.readouterr()
    assert content(prepare(data).folder) == before
    assert "its content has changed since it was written: preparing again" in " ".join(
        capsys.readouterr().err.split()
    )
    assert verify_prepared(tmp_path / "ds") == {"train": 270, "valid": 30}
    # Nor is a vocabulary that was changed read for the one that the rows were encoded with.
    encoder = tmp_path / "ds" / "encoder.json"
    state = json.loads(encoder.read_text())
    state["dataset_id"] = "another"
    encoder.write_text(json.dumps(state))
    for look in (lambda: open_prepared(data), lambda: verify_prepared(tmp_path / "ds")):
        with pytest.raises(UserError, match=r"was not made with|has changed"):
            look()


class Killed(BaseException):
    """Like SIGKILL for a process: no handler runs after it."""


@pytest.mark.parametrize(
    ("owner", "name"),
    [(os, "fsync"), (os, "replace"), (os, "unlink"), (Path, "unlink"), (Path, "rmdir")],
)
def test_after_a_kill_there_is_the_earlier_store_and_the_new_one_can_be_completed(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    old = dataset(tmp_path, raw, *FEATURES)
    new = dataset(tmp_path, raw, *FEATURES, min_categr_count=12)
    before = content(prepare(old).folder)
    after = content(prepare(dataset(tmp_path / "fresh", raw, *new.feature_cols,
                                    min_categr_count=12)).folder)  # fmt: skip
    original, fits, kills = getattr(owner, name), counted(monkeypatch), 0
    for at in range(0, 99, 5 if name in ("fsync", "unlink") else 1):
        calls = 0

        def kill(*args: Any, at: int = at, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return original(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            try:
                prepare(new)
                break
            except Killed:
                kills += 1
        now = {k: v for k, v in content(tmp_path / "ds").items() if not k.startswith(".partial")}
        if (tmp_path / "ds" / "prepare.json").exists():
            assert now in (before, after)
        fitted = len(fits)
        assert content(prepare(new).folder) == after
        taken_up = len(fits) == fitted
        assert taken_up or at < 5  # the fit is kept once it is written
        assert sorted(p.name for p in (tmp_path / "ds").iterdir()) == [
            ".tossctr-store", "encoder.json", "prepare.json", "train", "valid",
        ]  # fmt: skip
        assert content(prepare(old).folder) == before
    assert kills


def test_a_full_disk_is_one_line_and_keeps_the_earlier_store(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    before = content(prepare(data).folder, but=())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tossctr.data.store._ArrayWriter.append", full)
        with pytest.raises(UserError, match=r"cannot be written: No space left.*free some space"):
            prepare(data, force=True)
    assert content(tmp_path / "ds", but=()) == before


def test_a_second_process_waits_for_the_first(tmp_path: Path, raw: Path) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    script = (
        "import sys; sys.path.insert(0, 'tests/data'); from pathlib import Path;"
        "from frames import *; from tossctr.data.prepare import prepare;"
        f"prepare(dataset(Path({str(tmp_path)!r}), Path({str(raw)!r}), *FEATURES))"
    )
    root = Path(__file__).parents[2]
    with locked(tmp_path / ".ds.lock", "it"):
        other = subprocess.Popen(
            [sys.executable, "-c", script], cwd=root, stderr=subprocess.PIPE, text=True
        )
        assert other.stderr is not None
        assert f"waiting for process {os.getpid()}" in other.stderr.readline()
        assert not data.data_root.joinpath("ds").exists()
    assert other.wait() == 0
    other.stderr.close()
    assert (tmp_path / "ds" / "prepare.json").is_file()


def test_an_error_in_fitting_leaves_what_was_there(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = dataset(tmp_path, raw, *FEATURES)
    prepare(good)
    score = feature("user", "categorical", "int", remap=False, vocab_size=2)
    with pytest.raises(UserError, match="beyond vocab_size"):
        prepare(dataset(tmp_path, raw, *FEATURES[:-1], score))
    fits = counted(monkeypatch)
    prepare(good)
    assert not fits


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    # Raw files often lie in the data set's own folder.
    (tmp_path / "ds").mkdir()
    raw = write(TABLE, tmp_path / "ds" / "train.parquet")
    data = dataset(tmp_path, raw, *FEATURES)
    prepare(data)
    prepare(data, force=True)
    assert raw.is_file()
    assert sorted(p.name for p in raw.parent.iterdir()) == [
        ".tossctr-store", "encoder.json", "prepare.json", "train", "train.parquet", "valid",
    ]  # fmt: skip


def test_prepare_records_its_inputs(tmp_path: Path, raw: Path) -> None:
    done = prepare(dataset(tmp_path, raw, *FEATURES))
    made = json.loads((done.folder / "prepare.json").read_text())
    assert made["inputs"]["train"]["size"] == raw.stat().st_size
    assert made["encoder"] == done.encoder.hash
    assert made["report"]["train"]["rows"] == len(done.train)
    assert made["seconds"] > 0
    assert made["peak_mb"] > 10


# --- what cannot be prepared ---


def refused(data: DatasetConfig) -> str:
    with pytest.raises(UserError) as raised:
        prepare(data)
    assert not (data.data_root / "ds" / "prepare.json").exists()
    assert not (data.data_root / "ds" / "train").exists()
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(tmp_path: Path, rows: int, method: str) -> None:
    raw = write(TABLE.slice(0, rows), tmp_path / "train.parquet")
    split = ValidSplit(method=method)  # type: ignore[arg-type]
    line = refused(dataset(tmp_path, raw, *FEATURES, valid_split=split))
    assert "train.parquet" in line
    assert "no rows to train on" in line or "same label" in line


def test_no_rows_to_validate_on(tmp_path: Path) -> None:
    raw = write(TABLE.slice(0, 6), tmp_path / "train.parquet")
    split = ValidSplit(method="stratified", fraction=0.01)
    assert "no rows to validate on" in refused(dataset(tmp_path, raw, *FEATURES, valid_split=split))


def test_a_csv_with_only_a_header(tmp_path: Path) -> None:
    raw = tmp_path / "train.csv"
    raw.write_text("seq,clicked\n")
    line = refused(dataset(tmp_path, raw, feature("seq", "sequence", "str")))
    assert "no rows to train on" in line


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(tmp_path: Path, label: int) -> None:
    table = TABLE.set_column(8, "clicked", pa.array([label] * 300))
    raw = write(table, tmp_path / "train.parquet")
    line = refused(dataset(tmp_path, raw, *FEATURES))
    assert f"column clicked: every training row has the same label (found {label})" in line


@pytest.mark.parametrize("method", ["time", "random", "stratified"])
def test_a_bad_value_names_file_column_row_and_value(tmp_path: Path, method: str) -> None:
    score = TABLE["score"].to_numpy().copy()
    score[123] = np.inf
    raw = write(TABLE.set_column(2, "score", pa.array(score)), tmp_path / "train.parquet")
    split = ValidSplit(method=method, fraction=0.3)  # type: ignore[arg-type]
    line = refused(dataset(tmp_path, raw, *FEATURES, valid_split=split))
    assert "train.parquet, column score, row 123:" in line
    assert "inf" in line


def test_missing_columns(tmp_path: Path, raw: Path) -> None:
    more = [feature(f"history_a_{i}", "numeric", "float") for i in range(37)]
    assert "37 columns are missing" in refused(dataset(tmp_path, raw, *FEATURES, *more))


# --- memory ---

MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from frames import dataset, feature
from numpy.typing import NDArray
from tossctr.data.prepare import prepare

features = [feature("seq", "sequence", "str")]
features += [feature(f"x{i}", "numeric", "float", normalizer="MinMaxScaler") for i in range(20)]
data = dataset(Path(sys.argv[3]), Path(sys.argv[2]), *features, max_rows=int(sys.argv[4]))
prepare(data, batch_rows=1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    # One row group of 80,000 rows and 80 MB of sequences; a whole-file reader would need 300 MB.
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 700, 997)
    texts = np.array([",".join(map(str, rng.integers(1, 585, n))) for n in lengths], object)
    rows = 80_000
    table = pa.table(
        {
            "seq": pa.array(texts[rng.integers(0, 997, rows)]),
            "clicked": pa.array((np.arange(rows) % 3 == 0).astype(np.int8)),
            **{f"x{i}": rng.random(rows, np.float32) for i in range(20)},
        }
    )
    raw = tmp_path / "train.parquet"
    pa.parquet.write_table(table, raw, row_group_size=rows, use_dictionary=False)
    del table

    def peak(some: int) -> float:
        root = tmp_path / str(some)
        command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent), str(raw), str(root)]
        done = subprocess.run([*command, str(some)], check=True, capture_output=True, text=True)
        return float(done.stdout)

    assert peak(80_000) - peak(16_000) < 40


@pytest.mark.parametrize(
    "name", ["train/notes.txt", ".partial/notes.txt", "encoder.json", "prepare.json", "valid"]
)
def test_what_prepare_did_not_make_is_not_removed(tmp_path: Path, raw: Path, name: str) -> None:
    own = tmp_path / "ds" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        prepare(dataset(tmp_path, raw, *FEATURES))
    assert own.read_text() == "mine"
    assert [p for p in (tmp_path / "ds").rglob("*") if p.is_file()] == [own]


def test_an_unchanged_store_that_may_only_be_read_is_used(tmp_path: Path, raw: Path) -> None:
    data = dataset(tmp_path, raw, *FEATURES)
    before = stamps(prepare(data).folder)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for folder in (tmp_path, *tmp_path.parents):
                if folder.is_relative_to(tempfile.gettempdir()) and folder.stat().st_mode & 5 != 5:
                    folder.chmod(0o755)
            if os.getuid() == 0:  # whom no rights bind
                os.setuid(65534)
            else:
                tmp_path.chmod(0o555)
            assert not os.access(tmp_path, os.W_OK)
            prepare(data)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stamps(tmp_path / "ds") == before
