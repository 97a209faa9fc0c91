"""`--workers N`: torch's agent and Ray Train start the processes, and start them again."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import experiment
from together import together

from tossctr.cluster.tasks import connected
from tossctr.data.prepare import open_prepared, prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.pipeline import launch
from tossctr.pipeline.launch import train_with
from tossctr.pipeline.train import train_experiment
from tossctr.runs.run_folder import load_run
from tossctr.runs.train import train
from tossctr.training.interruption import Stopped
from tossctr.training.resume import Checkpoints

pytestmark = pytest.mark.cluster

CPU = torch.device("cpu")
KEYS = ["net_dropout=0.3", "optimizer=adam", "learning_rate=0.01", "checkpoint_minutes=1e-9"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 350, 1, seed=3)
    prepare(experiment(root).dataset)
    return root


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Forks instead of fresh processes, which would import everything again; signals as before."""
    forking = partial(launch.LaunchConfig, start_method="fork")
    monkeypatch.setattr(launch, "LaunchConfig", forking)
    monkeypatch.setenv(launch.OWN_STORE, "1")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sabotage(monkeypatch, number, *, rank, step):
    """Send a signal to one process at a step, the first time that it gets there."""
    look = Checkpoints.save_if_due

    def look_and_die(self, trainer):
        look(self, trainer)
        first_time = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
        if first_time and self.processes.rank == rank and trainer.global_step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Checkpoints, "save_if_due", look_and_die)


def outcome(folder: Path):
    return load_file(folder / "model.safetensors"), load_run(folder).metrics["history"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_started_again_and_nothing_is_lost(
    root, tmp_path, monkeypatch, capfd, rank
):
    chosen = experiment(root, *KEYS, f"model_root={tmp_path / 'runs'}")
    data = open_prepared(chosen.dataset)
    together(2, lambda p: train(chosen, data, CPU, tmp_path / "whole", processes=p) and None)
    sabotage(monkeypatch, signal.SIGKILL, rank=rank, step=6)
    run = train_with("torchrun", chosen, workers=2, gpu=-1, fresh=False)
    said = capfd.readouterr().err
    assert "a process was lost: all restarted (1 of 3)" in said
    assert "resuming from epoch 2, step 6" in said
    assert "Traceback" not in said
    weights, history = outcome(run.folder)
    expected, expected_history = outcome(tmp_path / "whole")
    assert history == expected_history
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (run.folder / "validation.parquet").is_file()


def test_sigterm_to_one_process_stops_all_with_a_checkpoint(root, tmp_path, monkeypatch, capfd):
    chosen = experiment(root, f"model_root={tmp_path}")
    sabotage(monkeypatch, signal.SIGTERM, rank=1, step=2)
    with pytest.raises(Stopped, match="the same command resumes from here") as stopped:
        train_with("torchrun", chosen, workers=2, gpu=-1, fresh=False)
    assert stopped.value.number == signal.SIGTERM
    assert len(list((tmp_path / "FESeq_toy.partial" / "checkpoints").glob("step-*"))) == 1
    train_experiment(chosen, CPU)
    assert "resuming from epoch 1, step 3" in capfd.readouterr().err


def test_a_mistake_is_one_line_and_no_reason_to_start_again(root, tmp_path, monkeypatch, capfd):
    chosen = experiment(root, f"model_root={tmp_path}")

    def refuse(*args, **keys):
        raise UserError("the data are not there", file="x.parquet")

    monkeypatch.setattr("tossctr.pipeline.train.prepare", refuse)
    with pytest.raises(UserError, match=r"^x\.parquet: the data are not there$"):
        train_with("torchrun", chosen, workers=2, gpu=-1, fresh=False)
    assert "restarted" not in capfd.readouterr().err


def test_processes_lost_again_and_again_are_one_line(root, tmp_path, monkeypatch):
    chosen = experiment(root, f"model_root={tmp_path}")
    monkeypatch.setattr(launch, "MAX_RESTARTS", 1)
    # The agent looks so seldom that the other process has long noticed, and may end before it.
    seldom = partial(launch.LaunchConfig, monitor_interval=1)
    monkeypatch.setattr(launch, "LaunchConfig", seldom)

    def die(*args, **keys):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("tossctr.pipeline.train.check_model", die)
    with pytest.raises(UserError, match=r"a process was lost 2 times \(found 'SIGKILL'\)"):
        train_with("torchrun", chosen, workers=2, gpu=-1, fresh=False)


def test_ray_trains_to_the_same_weights_and_reports_user_errors(root, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    chosen = experiment(root, *KEYS, f"model_root={tmp_path / 'runs'}")
    data = open_prepared(chosen.dataset)
    together(2, lambda p: train(chosen, data, CPU, tmp_path / "whole", processes=p) and None)
    with connected(2):
        run = train_with("ray", chosen, workers=2, gpu=-1, fresh=True)
        weights, history = outcome(run.folder)
        expected, expected_history = outcome(tmp_path / "whole")
        assert history == expected_history
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        kept = {path.name for path in (tmp_path / "runs").iterdir()}
        assert kept == {"FESeq_toy", "results.csv"}
        nowhere = experiment(root, f"model_root={tmp_path}", "train_data=nowhere.parquet")
        with pytest.raises(UserError, match=r"nowhere\.parquet"):
            train_with("ray", nowhere, workers=2, gpu=-1, fresh=False)
