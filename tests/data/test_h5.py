"""H5 files that are hostile or damaged are refused in one line; a full disk leaves nothing."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tossctr.data.sources.h5 import H5Source
from tossctr.errors import UserError
from tossctr.interop.fuxictr_files import writing


def to_itself(file: h5py.File) -> None:
    file["loop"] = file["/"]


def endless_lists(file: h5py.File) -> None:
    file.create_dataset("x", (1000, 2**40), "i4", chunks=(1, 1000))


def endless_rows(file: h5py.File) -> None:
    file.create_dataset("x", (2**40,), "i4", chunks=(1000,))


def large_chunk(file: h5py.File) -> None:
    file.create_dataset("x", (2**29,), "i1", chunks=(2**29,), compression="gzip")


def external_data(file: h5py.File) -> None:
    secret = Path(file.filename).parent / "secret"
    secret.write_bytes(b"secret!!" * 4)
    file.create_dataset("x", (4,), "S8", external=[(str(secret), 0, 32)])


def external_link(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).parent / "other.h5", "w") as other:
        other["x"] = [1, 2]
    file["x"] = h5py.ExternalLink("other.h5", "/x")


def virtual_data(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).parent / "other.h5", "w") as other:
        other["x"] = [1, 2]
    layout = h5py.VirtualLayout((2,), "i8")
    layout[:] = h5py.VirtualSource(Path(file.filename).parent / "other.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


def soft_link(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def compound(file: h5py.File) -> None:
    file["x"] = np.zeros(3, [("a", "i4"), ("b", "f4")])


def references(file: h5py.File) -> None:
    file.create_dataset("x", (3,), h5py.ref_dtype)


def ragged(file: h5py.File) -> None:
    file.create_dataset("x", (3,), h5py.vlen_dtype(np.int32))


def scalar(file: h5py.File) -> None:
    file["x"] = 3


def cube(file: h5py.File) -> None:
    file["x"] = np.zeros((2, 2, 2))


def nothing(file: h5py.File) -> None:
    file["x"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (to_itself, "column loop: not a column: a group"),
        (endless_lists, "MB in a row or a chunk"),
        (endless_rows, "of which the file holds 0.0"),
        (large_chunk, "MB in a row or a chunk"),
        (external_data, "stored in another file, which is not opened"),
        (virtual_data, "stored in another file, which is not opened"),
        (external_link, "a link, which is not followed"),
        (soft_link, "a link, which is not followed"),
        (compound, "neither numbers nor texts"),
        (references, "neither numbers nor texts"),
        (ragged, "neither numbers nor texts"),
        (scalar, "neither (rows,) nor (rows, length): ()"),
        (cube, "neither (rows,) nor (rows, length): (2, 2, 2)"),
        (nothing, "neither (rows,) nor (rows, length): None"),
    ],
)
def test_an_unusable_h5_item_is_a_one_line_error(
    tmp_path: Path, make: Callable[[h5py.File], None], problem: str
) -> None:
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(UserError) as raised:
        list(H5Source(path, {}).batches())
    assert problem in str(raised.value)
    assert "secret" not in str(raised.value)


def test_damaged_bytes_are_one_line_or_read(tmp_path: Path) -> None:
    path, rng = tmp_path / "rows.h5", np.random.default_rng(4)
    columns: dict[str, Any] = {
        "x": rng.normal(size=200),
        "seq": rng.integers(0, 9, (200, 5)),
        "id": np.array([f"T{i}" for i in range(200)], object),
    }
    with writing(path, "v") as append:
        append(columns)
    whole, refused = path.read_bytes(), []
    for at in rng.integers(0, 3000, 60):
        path.write_bytes(whole[:at] + bytes([rng.integers(0, 256)]) + whole[at + 1 :])
        try:
            assert sum(b.num_rows for b in H5Source(path, {}).batches()) >= 0
        except UserError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in line for line in refused)
    path.write_bytes(whole)
    (batch,) = H5Source(path, {}).batches()
    assert batch.column("x").to_pylist() == columns["x"].tolist()
    assert batch.column("seq").to_pylist() == columns["seq"].tolist()
    assert batch.column("id").to_pylist() == columns["id"].tolist()


def fill(path: Path, rng: np.random.Generator) -> None:
    with writing(path, "v") as append:
        for _ in range(4):
            append({"x": rng.normal(size=20_000), "id": np.array(["T"] * 20_000, object)})


@pytest.mark.parametrize("limit", [100, 3_000, 50_000, 300_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    path, rng = tmp_path / "rows.h5", np.random.default_rng(0)
    path.write_text("earlier")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match="cannot be written: File too large; raise the limit"):
            fill(path, rng)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_h5_takes_for_a_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="column a/b: names in H5 cannot contain /"),
        writing(tmp_path / "rows.h5", "v") as append,
    ):
        append({"a/b": np.zeros(3)})
    assert not list(tmp_path.iterdir())
