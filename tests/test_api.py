"""The Python interface, as a notebook uses it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import tossctr
import tossctr.commands
from tossctr.api import as_table
from tossctr.commands.options import app
from tossctr.errors import UserError

ROOT = Path(__file__).parents[1]
SMALL = ["epochs=1", "batch_size=256", "max_len=16", "num_workers=0", "valid_split.fraction=0.3"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    (root / "configs").symlink_to(ROOT / "configs")
    tossctr.synthesize(root / "data" / "toy", 1_500, 200, seed=3)
    return root


@pytest.fixture(scope="module")
def run(project):
    # The project is where configs lie, not where the link leads.
    experiment = tossctr.load_experiment(
        project / "configs",
        "DCNv2_toy",
        [*SMALL, f"data_root={project / 'data'}", f"model_root={project / 'checkpoints'}",
         *(f"{key}={project / 'data/toy' / name}" for key, name in (
             ("train_data", "train.parquet"), ("test_data", "test.parquet"),
             ("sample_submission", "sample_submission.csv")))],
    )  # fmt: skip
    return tossctr.train(experiment, gpu=-1)


@pytest.fixture(scope="module")
def rows(project):
    return pq.read_table(project / "data/toy/test.parquet")


class Stream:
    """A data frame of a library that is not known here: only its Arrow stream is."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class ToArrow:
    def __init__(self, table):
        self.table = table

    def to_arrow(self):
        return self.table


class Interchange:
    def __init__(self, table):
        self.table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self.table.__dataframe__(nan_as_null, allow_copy)


def test_import_is_quick_and_names_are_there():
    code = (
        "import sys, tossctr; assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules;"
        "from tossctr import UserError; print(UserError.__module__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["tossctr.errors", "False"], done.stderr
    for name in tossctr.__all__:
        assert name in dir(tossctr)
        assert callable(getattr(tossctr, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tossctr.nothing


def test_predict_gives_what_the_command_writes(project, run, rows):
    output = project / "submission.csv"
    arguments = ["predict", "--run", run.folder, "--output", output, "--gpu", "-1"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    written = pyarrow.csv.read_csv(output)["clicked"].to_numpy()
    ours = tossctr.predict(run, rows, gpu=-1)
    np.testing.assert_allclose(ours, written, atol=1e-9)


def test_probabilities_are_click_rates(run, rows):
    found = tossctr.predict(run, rows, objective="raw", gpu=-1)
    assert found.shape == (200,)
    assert found.dtype == np.float64
    assert ((found > 0) & (found < 0.5)).all()


@pytest.mark.parametrize("form", [Stream, ToArrow, Interchange, lambda t: t.to_pydict()])
def test_predict_accepts_any_arrow_data_frame(run, rows, form):
    few = rows.slice(0, 20)
    expected = tossctr.predict(run, few, gpu=-1)
    np.testing.assert_allclose(tossctr.predict(run, form(few), gpu=-1), expected, rtol=1e-6)


def test_polars(run, rows):
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(rows).head(20)
    expected = tossctr.predict(run, rows.slice(0, 20), gpu=-1)
    np.testing.assert_allclose(tossctr.predict(run, frame, gpu=-1), expected, rtol=1e-6)


def test_chunks_order_and_other_columns_do_not_matter(run, rows):
    expected = tossctr.predict(run, rows, gpu=-1)
    cut = pa.concat_tables([rows.slice(0, 7), rows.slice(7)])
    names = [*reversed(rows.column_names)]
    mixed = cut.select(names).append_column("another", pa.array(range(200)))
    np.testing.assert_allclose(tossctr.predict(run.folder, mixed, gpu=-1), expected, rtol=1e-5)


def test_no_rows_are_no_probabilities(run, rows):
    assert tossctr.predict(run, rows.slice(0, 0), gpu=-1).shape == (0,)


def test_a_missing_column_and_a_bad_value_are_named(run, rows):
    with pytest.raises(UserError, match=r"no column 'hour'.*did you mean"):
        tossctr.predict(run, rows.rename_columns({"hour": "hours"}), gpu=-1)
    bad = rows.set_column(
        rows.column_names.index("feat_a_1"), "feat_a_1", pa.array([0.0] * 150 + [float("inf")] * 50)
    )
    with pytest.raises(UserError, match="column feat_a_1, row 150"):
        tossctr.predict(run, bad, gpu=-1)


def test_other_objects_than_data_frames_are_refused():
    with pytest.raises(TypeError, match="not list"):
        as_table([1, 2])


def test_load_run_takes_text(run):
    assert tossctr.load_run(str(run.folder)).metrics == run.metrics


def test_the_notebook_runs(project, monkeypatch):
    """Its cells in order in one namespace, on fewer rows."""
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    folder = project / "notebook"
    (folder / "examples").mkdir(parents=True)
    monkeypatch.chdir(folder / "examples")  # where a notebook is started
    (folder / "configs").mkdir()
    for file in (ROOT / "configs").rglob("*.yaml"):
        copy = folder / "configs" / file.relative_to(ROOT / "configs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    tossctr.synthesize(folder / "data" / "toy", 2_000, 200)
    space: dict[str, object] = {}
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), space)  # noqa: S102, our own
    assert (folder / "data/output/report.html").stat().st_size > 50_000
    assert len(space["clicked"]) == 200
