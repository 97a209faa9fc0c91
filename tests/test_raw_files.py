"""`tossctr run` makes raw files only where none can be meant."""

import shutil
from pathlib import Path

import pytest

from tossctr.data.raw_files import ensure_raw_files
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment

CONFIGS = Path(__file__).parents[1] / "configs"
ROWS = {"seed": 1, "train_rows": 3, "test_rows": 2}


def dataset(root, **names):
    keys = {"train_data": "train.parquet", "test_data": "test.parquet",
            "sample_submission": "sample_submission.csv", **names}  # fmt: skip
    paths = [f"{key}={'null' if name is None else root / name}" for key, name in keys.items()]
    return load_experiment(CONFIGS, "FESeq_toy", paths).dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "raw"
    assert ensure_raw_files(dataset(root), **ROWS)
    return root


def test_raw_files_are_made_in_an_empty_folder_and_then_used(made):
    before = {p: p.stat().st_mtime_ns for p in made.iterdir()}
    assert {p.name for p in before} >= {"train.parquet", "test.parquet", "truth.parquet"}
    assert not ensure_raw_files(dataset(made), **ROWS)
    assert {p: p.stat().st_mtime_ns for p in made.iterdir()} == before


@pytest.mark.parametrize(
    ("there", "names", "line"),
    [
        (["train.parquet"], {"train_data": "trian.parquet"}, "trian.parquet; did you mean train.p"),
        (["train.parquet"], {"train_data": "train.csv"}, "train.csv; did you mean train.parquet?"),
        (["train.parquet"], {}, "test.parquet"),
        (["test.parquet"], {}, "train.parquet"),
        (["truth.parquet"], {}, "train.parquet"),
        (["notes.txt"], {}, "train.parquet"),
        ([], {"train_data": "clicks.parquet"}, "clicks.parquet"),
        ([], {"train_data": "train.csv"}, "train.csv"),
        ([], {"test_data": "other.parquet"}, "train.parquet"),
        ([], {"valid_data": "valid.parquet"}, "train.parquet"),
        ([], {"sample_submission": "other/sample_submission.csv"}, "train.parquet"),
    ],
)
def test_a_folder_with_files_of_the_user_is_left_unchanged(tmp_path, there, names, line):
    for name in there:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError) as raised:
        ensure_raw_files(dataset(tmp_path, **names), **ROWS)
    file, _, remedy = line.partition("; ")
    assert raised.value.line().startswith(f"{tmp_path / file}: does not exist; {remedy}")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(there, "mine")


def test_a_missing_file_of_a_synthetic_folder_is_reported_not_recreated(made, tmp_path):
    """A synthetic test file that was removed is not made again for the remaining training file."""
    root = shutil.copytree(made, tmp_path / "raw")
    (root / "test.parquet").unlink()
    train = (root / "train.parquet").read_bytes()
    with pytest.raises(UserError, match=r"test\.parquet: does not exist"):
        ensure_raw_files(dataset(root), **ROWS)
    assert (root / "train.parquet").read_bytes() == train
    for path in root.glob("*.*"):
        if not path.name.startswith(".tossctr"):
            path.unlink()
    assert ensure_raw_files(dataset(root), **ROWS)


def test_no_raw_files_are_made_for_another_layout(tmp_path):
    chosen = dataset(tmp_path / "raw")
    label = chosen.label_col.model_copy(update={"name": "is_click"})
    with pytest.raises(UserError, match=r"train\.parquet: does not exist"):
        ensure_raw_files(chosen.model_copy(update={"label_col": label}), **ROWS)
    assert not (tmp_path / "raw").exists()
