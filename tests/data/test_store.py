from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from frames import FEATURES, dataset, feature, raw_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tossctr.data import verification
from tossctr.data.encoder import Encoder
from tossctr.data.manifest import read_manifest
from tossctr.data.rows import EncodedRows
from tossctr.data.store import StoreWriter, open_store
from tossctr.data.verification import check_content, check_store, stamps_of
from tossctr.errors import UserError

BATCH = raw_table(40, seed=5).to_batches()[0]
ENCODER = Encoder.fit(dataset(Path(), Path("train.parquet"), *FEATURES), [BATCH])
MATRICES = ("categorical", "numeric", "times", "meta", "label")


def write(folder: Path, *cuts: int) -> Path:
    """A store of all rows, appended in parts."""
    with StoreWriter(folder, ENCODER.features, ENCODER.hash) as writer:
        for a, b in pairwise([0, *cuts, len(BATCH)]):
            writer.append(ENCODER.transform(BATCH.slice(a, b - a)))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def sign(folder: Path, name: str) -> None:
    """Make a file's hash right again, as whoever changed it would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for stored in manifest["arrays"].values():
        if stored["file"] == name:
            stored["sha256"] = hashlib.sha256((folder / name).read_bytes()[128:]).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def verified(folder: Path) -> EncodedRows:
    manifest = read_manifest(folder)
    check_content(folder, manifest)
    return open_store(folder, manifest)


def same(ours: EncodedRows, theirs: EncodedRows) -> None:
    for name in MATRICES:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    for kind in ("sequences", "time_sequences"):
        a, b = getattr(ours, kind), getattr(theirs, kind)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name].values, b[name].values)
            np.testing.assert_array_equal(a[name].offsets, b[name].offsets)
            assert a[name].values.dtype == b[name].values.dtype


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, len(BATCH)), max_size=4).map(sorted))
def test_a_store_does_not_depend_on_batches(tmp_path: Path, cuts: list[int]) -> None:
    folder = write(tmp_path / "store", *cuts)
    rows = verified(folder)
    same(rows, ENCODER.transform(BATCH))
    assert rows.features == ENCODER.features
    assert content(folder) == content(write(tmp_path / "whole"))
    verified(folder)


def test_files_are_plain_npy_and_maps_are_read_only(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    rows = verified(folder)
    for name in MATRICES:
        np.testing.assert_array_equal(
            np.load(folder / f"{name}.npy", allow_pickle=False), getattr(rows, name)
        )
    values = np.load(folder / "000-seq.values.npy", allow_pickle=False)
    np.testing.assert_array_equal(values, rows.sequences["seq"].values)
    assert isinstance(rows.numeric, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows.numeric[0, 0] = 1.0


def test_no_rows_and_no_columns(tmp_path: Path) -> None:
    encoder = Encoder.fit(
        dataset(Path(), Path("t"), feature("seq", "sequence", "str")), [BATCH.select([1, 8])]
    )
    with StoreWriter(tmp_path / "store", encoder.features, encoder.hash):
        pass
    rows = verified(tmp_path / "store")
    assert len(rows) == 0
    assert rows.sequences["seq"].offsets.tolist() == [0]


def test_field_names_do_not_choose_files(tmp_path: Path) -> None:
    names = ["../../escape", "a/b", "a_b", "con", "é" * 300, ".", "x\0y"]
    columns = {name: BATCH.column("seq") for name in names}
    batch = pa.RecordBatch.from_pydict({**columns, "clicked": BATCH.column("clicked")})
    features = [feature(name, "sequence", "str") for name in names]
    encoder = Encoder.fit(dataset(Path(), Path("t"), *features), [batch])
    folder = tmp_path / "deep" / "store"
    with StoreWriter(folder, encoder.features, encoder.hash) as writer:
        writer.append(encoder.transform(batch))
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in folder.parent.iterdir()] == ["store"]
    same(verified(folder), encoder.transform(batch))


def test_an_interrupted_store_is_absent(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def interrupted() -> None:
        with StoreWriter(folder, ENCODER.features, ENCODER.hash) as writer:
            writer.append(ENCODER.transform(BATCH))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    write(folder)
    before = content(folder)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(folder) == before


def test_rows_of_another_type_are_refused(tmp_path: Path) -> None:
    rows = ENCODER.transform(BATCH)
    with (
        pytest.raises(ValueError, match="categorical"),
        StoreWriter(tmp_path / "store", ENCODER.features, ENCODER.hash) as writer,
    ):
        writer.append(replace(rows, categorical=rows.categorical.astype(np.int64)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 3),
        (("format",), "other"),
        (("rows",), 39),
        (("rows",), -1),
        (("arrays", "numeric", "file"), "../numeric.npy"),
        (("arrays", "numeric", "file"), "/etc/passwd"),
        (("arrays", "numeric", "file"), "label.npy"),
        (("arrays", "numeric", "dtype"), "|O"),
        (("arrays", "numeric", "dtype"), "<f8"),
        (("arrays", "numeric", "shape"), [40, 3]),
        (("arrays", "numeric", "shape"), [-40, -2]),
        (("arrays", "seq/values", "shape"), [10**12]),
        (("arrays", "seq/values", "shape"), []),
        (("arrays", "seq/offsets", "shape"), [40]),
        (("arrays", "extra"), {"file": "x.npy", "dtype": "<f4", "shape": [1], "sha256": ""}),
        (("features", "fields"), []),
        (("features",), None),
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    folder = write(tmp_path / "store")
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="prepare again"):
        verified(folder)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    numeric = folder / "numeric.npy"
    good = numeric.read_bytes()
    for bad in (good[:-1], good + b"x", good[:100], b"\x80" + good[1:], b""):
        numeric.write_bytes(bad)
        with pytest.raises(UserError, match=r"numeric\.npy"):
            verified(folder)
    numeric.unlink()
    with pytest.raises(UserError, match=r"is missing|is a link"):
        verified(folder)
    (tmp_path / "outside.npy").write_bytes(good)
    numeric.symlink_to(tmp_path / "outside.npy")
    with pytest.raises(UserError, match=r"is missing|is a link"):
        verified(folder)
    with pytest.raises(UserError, match="is missing"):
        verified(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["numeric.npy", "000-seq.values.npy", "label.npy"])
def test_verifying_finds_one_changed_byte(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "store")
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: its content has changed"):
        verified(folder)


def test_a_copied_store_is_verified_once_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = verification.check_content
    monkeypatch.setattr(
        verification, "check_content", lambda f, m: (read.append(f), original(f, m))
    )
    folder = write(tmp_path / "store")
    manifest = read_manifest(folder)
    known = stamps_of(folder, manifest)
    moved = folder.rename(tmp_path / "moved")
    check_store(moved, manifest, known)
    assert read == []
    copied = Path(shutil.copytree(moved, tmp_path / "copied"))
    check_store(copied, manifest, known)
    check_store(copied, manifest, stamps_of(copied, manifest))
    assert read == [copied]
    known = stamps_of(copied, manifest)
    # Not even a changed byte under the old modification time goes unseen.
    label = copied / "label.npy"
    times = label.stat()
    with label.open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(1 - verified(moved).label[-1]).tobytes())
    os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert label.stat().st_mtime_ns == times.st_mtime_ns
    with pytest.raises(UserError, match=r"label\.npy: its content has changed"):
        check_store(copied, manifest, known)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("categorical.npy", -1, b"\xff"),  # beyond the vocabulary
        ("label.npy", -4, np.float32(np.nan).tobytes()),
        ("label.npy", -4, np.float32(0.5).tobytes()),
        ("000-seq.values.npy", -1, b"\xff"),
        ("000-seq.offsets.npy", 128 + 8, np.int64(2**40).tobytes()),
        ("000-seq.offsets.npy", 128 + 8, np.int64(-1).tobytes()),
    ],
)
def test_values_that_do_not_fit_are_refused_though_their_hash_is_right(
    tmp_path: Path, name: str, at: int, value: bytes
) -> None:
    folder = write(tmp_path / "store")
    data = bytearray((folder / name).read_bytes())
    at %= len(data)
    data[at : at + len(value)] = value
    (folder / name).write_bytes(data)
    sign(folder, name)
    with pytest.raises(UserError, match="do not fit"):
        verified(folder)


def test_offsets_that_lead_outside_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    file = folder / "000-seq.offsets.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-8] + (10**9).to_bytes(8, "little"))
    sign(folder, file.name)
    with pytest.raises(UserError, match="offsets do not fit"):
        verified(folder)
