"""The briefing's commands in a copy of the project, from other folders, on small raw files."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tossctr.data.synthetic import synthesize

PROJECT = Path(__file__).resolve().parents[2]
SMALL = ["--set", "epochs=1", "--set", "batch_size=512", "--set", "max_len=16", "--gpu", "-1"]
Script = Callable[..., None]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clone")
    for name in ("configs", "scripts"):
        shutil.copytree(PROJECT / name, root / name)
    synthesize(root / "data/raw", 3_000, 400, seed=5)
    return root


@pytest.fixture
def script(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Runs a script of the copy in this process (a process each would cost seconds), as one does
    from a folder that is not the project's."""

    def run(name: str, *arguments: str, cwd: Path, code: int = 0) -> None:
        monkeypatch.chdir(cwd)
        monkeypatch.syspath_prepend(str(project / "scripts"))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        sys.modules.pop("project", None)
        exited = 0
        try:
            runpy.run_path(str(project / "scripts" / name), run_name="__main__")
        except SystemExit as stop:
            exited = int(stop.code or 0)
        assert exited == code

    yield run
    sys.modules.pop("project", None)


def columns(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(path)


def test_toy_data_are_the_first_raw_rows(project: Path, script: Script, tmp_path: Path) -> None:
    stale = project / "data/toy/truth.parquet"
    stale.parent.mkdir(parents=True)
    stale.touch()
    script("create_toy_data.py", cwd=tmp_path)
    toy, raw = project / "data/toy", pq.read_table(project / "data/raw/train.parquet")
    csv = columns(toy / "train_toy.csv")
    assert csv.num_rows == 1_000
    assert csv.column_names == raw.column_names
    assert csv["clicked"].to_pylist() == raw["clicked"].to_pylist()[:1_000]
    assert pq.read_table(toy / "train.parquet").equals(raw)
    sample = columns(toy / "sample_submission.csv")
    assert sample["ID"].to_pylist() == pq.read_table(toy / "test.parquet")["ID"].to_pylist()
    assert not stale.exists()  # it was not of these rows


def test_medium_files_are_of_the_medium_vocabulary(
    project: Path, script: Script, tmp_path: Path
) -> None:
    script("convert_medium_data_to_h5.py", cwd=tmp_path)
    folder = project / "data/tossctr_medium"
    with h5py.File(folder / "train.h5") as train, h5py.File(folder / "valid.h5") as valid:
        assert train["seq"].shape == (2_700, 500)
        assert valid["seq"].shape == (300, 500)
        assert train.attrs["tossctr_vocabulary"] == valid.attrs["tossctr_vocabulary"]
    assert {"feature_map.json", "feature_vocab.json"} <= {p.name for p in folder.iterdir()}


def test_from_training_to_submissions(
    project: Path, script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expid = ["--config", "configs/", "--expid", "FESeq_toy"]
    script("create_toy_data.py", cwd=project / "data")
    capsys.readouterr()
    quiet = ["--mode", "train", *SMALL, "--set", "verbose=0"]
    script("train.py", *expid, *quiet, cwd=project / "scripts")
    assert "epoch" not in capsys.readouterr().err
    model = ["--model", "checkpoints/FESeq_toy/model.ckpt", "--gpu", "-1"]
    raw = ["--test_data", "data/raw/test.parquet", "--output", "data/output/submission.csv"]
    script("predict.py", *model, *raw, cwd=tmp_path)
    submission = columns(project / "data/output/submission.csv")
    ids = pq.read_table(project / "data/raw/test.parquet", columns=["ID"])["ID"]
    assert submission["ID"].to_pylist() == ids.to_pylist()

    script("convert_test_to_h5.py", cwd=tmp_path)
    h5 = ["--test_data", "data/toy/test_full.h5", "--output", "data/output/h5.csv"]
    script("predict.py", *model, *h5, cwd=tmp_path)
    assert columns(project / "data/output/h5.csv").equals(submission)

    # A test file made with another vocabulary is what the briefing's script gave unnoticed.
    other = ["--expid", "FESeq_medium", "--output", "data/full/test_full.h5"]
    script("convert_test_to_h5.py", *other, cwd=tmp_path)
    h5 = ["--test_data", "data/full/test_full.h5", "--output", "data/output/wrong.csv"]
    capsys.readouterr()
    script("predict.py", *model, *h5, cwd=tmp_path, code=2)
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: data/full/test_full.h5: was made with another vocabulary")
    assert not (project / "data/output/wrong.csv").exists()

    script("train.py", *expid, "--mode", "test", "--gpu", "-1", cwd=tmp_path)
    assert "AUC" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_one_line(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("train.py", "--expid", "FESeq_toy", "--gpu", "99", cwd=tmp_path, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: GPU 99 is not available")
    assert line.endswith("use --gpu -1 for the CPU")


def test_without_the_package_the_error_names_the_install_command(
    project: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-S", project / "scripts/train.py"],  # -S: no site-packages
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": ""},
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "TossCTR is not installed" in line
    assert ".venv/bin/python" in line
