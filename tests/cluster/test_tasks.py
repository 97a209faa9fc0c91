"""Preparing and scoring on Ray's workers give what one process gives."""

from __future__ import annotations

import builtins
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from frames import FEATURES, dataset, feature, raw_table, write

from tossctr import cli
from tossctr.cluster import tasks
from tossctr.config.schema import ValidSplit
from tossctr.data.prepare import prepare
from tossctr.data.preparing import passes
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.experiments.predictors import Folds
from tossctr.families.experiment import load_experiment
from tossctr.inference import resumable
from tossctr.inference.predict import BATCH_ROWS
from tossctr.pipeline.submit import submit
from tossctr.runs.run import Run
from tossctr.runs.train import train

pytestmark = pytest.mark.cluster

TABLE = raw_table(900, seed=8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "SPAN_ROWS", 150)


def folder_of(root: Path, table: pa.Table, cuts: list[int]) -> Path:
    """The table as files that end at these rows."""
    root.mkdir()
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        part = table.slice(start, end - start)
        write(part, root / f"part-{number:03d}.parquet", row_group_size=70)
    return root


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "prepare.json"
    }


SPLITS: list[dict[str, Any]] = [
    {"valid_split": ValidSplit(method="time", fraction=0.2)},
    {"valid_split": ValidSplit(method="random", fraction=0.2), "drop_redundant": True},
    {"valid_split": ValidSplit(method="stratified", fraction=0.2)},
    {"valid_split": ValidSplit(method="stratified", fraction=0.2), "max_rows": 611},
    {"valid_data": True, "max_rows": 500},
]


@pytest.mark.usefixtures("cluster", "small_spans")
@pytest.mark.parametrize("options", SPLITS, ids=lambda o: "-".join(map(str, o)))
def test_workers_make_the_store_that_one_process_makes(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    raw = folder_of(tmp_path / "raw", TABLE, [0, 333, 333, 800])
    options = dict(options)
    if "valid_data" in options:
        options["valid_data"] = write(raw_table(200, seed=9), tmp_path / "valid.parquet", 30)
    ranked = feature("score", "numeric", "float", normalizer="quantile")
    features = [ranked if f.name == "score" else f for f in FEATURES]
    alone = prepare(dataset(tmp_path / "alone", raw, *features, **options))
    with tasks.workers(2) as executor:
        together = prepare(dataset(tmp_path / "ray", raw, *features, **options), executor=executor)
    assert together.report == alone.report
    assert content(together.folder) == content(alone.folder)
    assert sorted(p.name for p in together.folder.iterdir()) == [
        ".tossctr-store", "encoder.json", "prepare.json", "train", "valid",
    ]  # fmt: skip


@pytest.mark.usefixtures("cluster", "small_spans")
def test_a_bad_value_is_one_line_that_names_the_file_and_its_row(tmp_path: Path) -> None:
    score = TABLE["score"].to_numpy().copy()
    score[810] = np.inf
    raw = folder_of(tmp_path / "raw", TABLE.set_column(2, "score", pa.array(score)), [333, 800])
    data = dataset(tmp_path, raw, *FEATURES)
    expected = r"part-002\.parquet, column score, row 10:"
    with pytest.raises(UserError, match=expected):
        prepare(data)
    with tasks.workers(2) as executor, pytest.raises(UserError, match=expected) as raised:
        prepare(data, executor=executor)
    assert "\n" not in str(raised.value)
    assert [p.name for p in (tmp_path / "ds").iterdir()] == [".tossctr-store"]  # only its mark


@pytest.mark.usefixtures("cluster")
def test_files_that_only_one_process_can_read_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "train.csv"
    raw.write_text("seq,clicked\n1,0\n2,1\n")
    data = dataset(tmp_path, raw, feature("seq", "sequence", "str"))
    with tasks.workers(2) as executor, pytest.raises(UserError, match="write it as Parquet"):
        prepare(data, executor=executor)


@pytest.mark.usefixtures("cluster")
def test_tasks_of_a_killed_worker_are_retried(tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    def killed_once(item: int) -> tuple[int, int]:
        if item == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item, os.getpid()

    with tasks.workers(2) as executor:
        found = list(executor.map(killed_once, range(12)))
    assert [item for item, _ in found] == list(range(12))
    assert marker.exists()
    assert len({pid for _, pid in found}) > 1


@pytest.mark.usefixtures("cluster")
def test_a_worker_lost_again_and_again_is_one_line() -> None:
    def killed(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with tasks.workers(2) as executor, pytest.raises(UserError, match="lost 4 times"):
        list(executor.map(killed, range(1)))


@pytest.mark.usefixtures("cluster")
def test_few_items_are_submitted_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(50):
            taken += 1
            yield item

    with tasks.workers(2) as executor:
        results = executor.map(lambda item: item, items())
        assert next(results) == 0
        assert taken <= 1 + 2 * tasks.AHEAD
        results.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 300, 10_000, seed=3)
    keys = [f"data_root={root}", f"train_data={root / 'train.parquet'}",
            f"test_data={root / 'test.parquet'}", "sample_submission=null",
            "valid_split.method=stratified", "valid_split.fraction=0.3",
            "max_len=8", "epochs=1", "num_workers=0"]  # fmt: skip
    experiment = load_experiment(Path(__file__).parents[2] / "configs", "FESeq_toy", keys)
    return train(experiment, prepare(experiment.dataset), torch.device("cpu"), root / "run")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("several", [False, True], ids=["run", "folds"])
def test_workers_score_to_the_bytes_of_one_process(
    run: Run, several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "CHUNK_ROWS", BATCH_ROWS)
    (tmp_path / "folds.json").write_text("{}")
    scored = Folds(tmp_path, ((run, run),), {}) if several else run
    outputs = [tmp_path / "alone.csv", tmp_path / "together.csv"]
    device = torch.device("cpu")
    alone = submit(
        scored, data=None, sample=None, output=outputs[0], device=device, objective="raw"
    )
    with tasks.workers(2) as executor:
        together = submit(
            scored,
            data=None,
            sample=None,
            output=outputs[1],
            device=device,
            objective="raw",
            executor=executor,
        )
    assert together == alone
    assert alone[0] == 10_000
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.usefixtures("cluster")
def test_the_commands_take_workers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = run.experiment.dataset
    raw = folder_of(tmp_path / "raw", pq.read_table(dataset.train_data), [100, 250])
    configs = str(Path(__file__).parents[2] / "configs")
    ray = ["--engine", "ray", "--workers", "2", "--json"]
    keys = ["--set", f"train_data={raw}", "--set", f"data_root={tmp_path}"]
    assert ended(["prepare", "--config", configs, "--dataset", "tossctr_toy", *keys, *ray]) == 0
    assert '"train_rows": 270' in capsys.readouterr().out
    test = folder_of(tmp_path / "test", pq.read_table(dataset.test_data).slice(0, 900), [800])
    scored = ["predict", "--run", str(run.folder), "--gpu", "-1", "--data", str(test)]
    assert ended([*scored, "--output", "out.csv", *ray]) == 0
    assert '"rows": 900' in capsys.readouterr().out
    assert ended([*scored, "--output", "alone.csv"]) == 0
    assert Path("out.csv").read_bytes() == Path("alone.csv").read_bytes()
    assert ended(["predict", "--run", str(run.folder), "--workers", "2"]) == 2
    assert "needs --engine ray" in capsys.readouterr().err


def ended(line: list[str]) -> int | str | None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    signal.signal(signal.SIGTERM, before)
    return end.value.code


def test_without_ray_the_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(UserError, match=r"Ray is not installed.*pip install 'tossctr\[ray\]'"),
        tasks.workers(2),
    ):
        pass
