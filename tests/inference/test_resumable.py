"""A scoring that was cut short ends as if it had not been, without scoring rows twice."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from tossctr.cli import main
from tossctr.data.encoder import Encoder
from tossctr.data.prepare import prepare
from tossctr.data.sources.opening import open_source
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.files import locked
from tossctr.inference import predict, resumable
from tossctr.pipeline import submit as submitting
from tossctr.runs.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 300, 400, seed=3)
    keys = [f"data_root={root}", f"train_data={root / 'train.parquet'}",
            f"test_data={root / 'test.parquet'}", "sample_submission=null",
            "valid_split.method=stratified", "valid_split.fraction=0.3",
            "max_len=8", "epochs=1", "num_workers=0"]  # fmt: skip
    experiment = load_experiment(CONFIGS, "FESeq_toy", keys)
    return train(experiment, prepare(experiment.dataset), CPU, root / "run")


@pytest.fixture(params=["parquet", "csv"])
def data(run, request, tmp_path):
    """1,450 rows, unevenly cut, in which some category and some number is strange."""
    table = pq.read_table(run.experiment.dataset.test_data)
    table = pa.concat_tables([table] * 4).slice(0, 1450)
    ids = pa.array([f"TEST_{i}" for i in range(len(table))])
    hours = pa.array(["99" if i % 7 == 0 else "10" for i in range(len(table))])
    table = table.set_column(table.column_names.index("ID"), "ID", ids)
    table = table.set_column(table.column_names.index("hour"), "hour", hours)
    path = tmp_path / f"test.{request.param}"
    if request.param == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=333)
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(resumable, "CHUNK_ROWS", 200)
    monkeypatch.setattr(resumable, "BATCH_ROWS", 100)


def submit(run, data, output, **options):
    return submitting.submit(run, data=data, sample=None, output=output, device=CPU, **options)


def killed_after(monkeypatch, batches):
    transform, calls = Encoder.transform, []

    def count(*args, **keys):
        calls.append(1)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return transform(*args, **keys)

    monkeypatch.setattr(Encoder, "transform", count)
    return calls


@pytest.mark.parametrize("data", ["parquet"], indirect=True)
def test_a_folder_of_that_name_with_a_users_own_files_is_not_removed(run, data, tmp_path):
    own = tmp_path / ".out.csv.scores" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(UserError, match="already exists, and TossCTR did not make it"):
        submit(run, data, tmp_path / "out.csv")
    assert own.read_text() == "mine"


@pytest.mark.parametrize("batches", [1, 2, 5, 14])
def test_a_killed_prediction_resumes_to_the_same_file(run, data, tmp_path, monkeypatch, batches):
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    expected = submit(run, data, whole)
    with monkeypatch.context() as patch:
        killed_after(patch, batches)
        with pytest.raises(KeyboardInterrupt):
            submit(run, data, output)
    assert not output.exists()
    with monkeypatch.context() as patch:
        calls = killed_after(patch, 99)
        rows, report = submit(run, data, output)
    assert len(calls) == 15 - batches // 2 * 2
    assert output.read_bytes() == whole.read_bytes()
    assert (rows, report.as_dict()) == (expected[0], expected[1].as_dict())
    assert report.unseen["hour"] == 208
    left = [".out.csv.written", ".whole.csv.written", "out.csv", data.name, "whole.csv"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_scores_of_another_file_or_on_demand_are_not_used(run, data, tmp_path, monkeypatch):
    output = tmp_path / "out.csv"

    def interrupted():
        with monkeypatch.context() as patch:
            killed_after(patch, 6)
            with pytest.raises(KeyboardInterrupt):
                submit(run, data, output)
        assert len(list(resumable.chunks_folder(output).glob("*.parquet"))) == 3
        return killed_after(monkeypatch, 99)

    calls = interrupted()
    submit(run, data, output, fresh=True)
    assert len(calls) == 15
    calls = interrupted()
    content = bytearray(data.read_bytes())
    at = content.index(b"TEST_1449")
    content[at : at + 9] = b"TEST_2222"
    data.write_bytes(content)
    if data.suffix == ".csv":
        submit(run, data, output)
        assert len(calls) == 15
        assert "TEST_2222" in output.read_text()


def test_a_damaged_part_is_scored_again(run, data, tmp_path, monkeypatch):
    submit(run, data, tmp_path / "whole.csv")
    output = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        killed_after(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            submit(run, data, output)
    part = resumable.chunks_folder(output) / "000001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    submit(run, data, output)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_batch_boundaries_do_not_depend_on_the_files_row_groups(run, data):
    sizes = [len(p.logit) for p in run.logits(data, device=CPU, start=300, batch_rows=100)]
    assert sizes == [100] * 11 + [50]
    assert np.isfinite(next(run.logits(data, device=CPU)).logit).all()


def test_two_runs_do_not_write_one_output(run, data, tmp_path):
    # A process may lock a file twice, so the other one is played by a child.
    import multiprocessing

    def hold(ready, done):
        with locked(tmp_path / ".out.csv.lock", "it"):
            ready.set()
            done.wait()

    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(ready, done))
    other.start()
    ready.wait()
    try:
        with pytest.raises(UserError, match=rf"process {other.pid} on .* is using the output"):
            submit(run, data, tmp_path / "out.csv")
    finally:
        done.set()
        other.join()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([["a"], ["b"]]), "column ID: holds list<element: string>, not ids"),
        (pa.array(["a", None]), "column ID, row 1: the id is missing"),
    ],
)
def test_null_or_invalid_ids_are_refused(run, tmp_path, ids, message):
    table = pq.read_table(run.experiment.dataset.test_data).slice(0, 2)
    path = tmp_path / "odd.parquet"
    pq.write_table(table.set_column(table.column_names.index("ID"), "ID", ids), path)
    with pytest.raises(UserError, match=message):
        submit(run, path, tmp_path / "out.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd.parquet"]


class Copying:
    """An executor whose workers have their own copy of the function, as other processes have."""

    def map(self, function, items):
        for item in items:
            yield copy.deepcopy(function)(item)


@pytest.mark.parametrize("data", ["parquet"], indirect=True)
def test_workers_predict_the_same_bytes_and_resume(run, data, tmp_path, monkeypatch):
    expected = submit(run, data, tmp_path / "whole.csv")
    with monkeypatch.context() as patch:
        killed_after(patch, 9)  # in the middle of the fifth part
        with pytest.raises(KeyboardInterrupt):
            submit(run, data, tmp_path / "out.csv", executor=Copying())
    with monkeypatch.context() as patch:
        calls = killed_after(patch, 99)
        assert submit(run, data, tmp_path / "out.csv", executor=Copying()) == expected
    assert len(calls) == 15 - 8
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("data", ["csv"], indirect=True)
def test_workers_cannot_share_a_csv_file(run, data, tmp_path):
    with pytest.raises(UserError, match="write it as Parquet"):
        submit(run, data, tmp_path / "out.csv", executor=Copying())


def test_a_file_is_opened_once(run, data, monkeypatch):
    opened = []

    def counting(path, *args, **options):
        opened.append(path)
        return open_source(path, *args, **options)

    monkeypatch.setattr(predict, "open_source", counting)
    batches = run.logits(data, device=CPU, id_col="ID")
    assert sum(len(batch.id) for batch in batches) == 1450
    assert opened == [data]


@pytest.mark.parametrize("data", ["parquet"], indirect=True)
def test_a_folder_is_scored_as_the_joined_file(run, data, tmp_path):
    table = pq.read_table(data)
    (tmp_path / "parts").mkdir()
    for number, (start, rows) in enumerate([(0, 0), (0, 777), (777, 3), (780, 670)]):
        pq.write_table(table.slice(start, rows), tmp_path / "parts" / f"{number}.parquet")
    expected = submit(run, data, tmp_path / "whole.csv")
    assert submit(run, tmp_path / "parts", tmp_path / "out.csv") == expected
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_worker_takes_the_one_gpu_that_it_sees(tmp_path):
    table = pa.table({"id": pa.array(["a", "b"])})
    pq.write_table(table, tmp_path / "test.parquet")
    run = SimpleNamespace(experiment=SimpleNamespace(dataset=SimpleNamespace(encoded=False)))
    devices = []

    class Recording:
        def map(self, score, spans):
            devices.append(score.args[2])
            yield from ()

    list(
        resumable._score_on_workers(
            Recording(), run, tmp_path / "test.parquet", torch.device("cuda", 1), None, 0
        )
    )
    assert devices == [torch.device("cuda", 0)]
    with pytest.raises(SystemExit):
        main(["predict", "--engine", "ray", "--gpu", "1"])
