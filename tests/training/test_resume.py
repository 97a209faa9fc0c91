"""An interrupted training resumes to the same weights, bit for bit."""

import multiprocessing
import os
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.runs.run_folder import RunWriter, load_run
from tossctr.runs.train import train
from tossctr.training import fit as module
from tossctr.training.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from tossctr.training.interruption import Stopped, StopSignal
from tossctr.training.resume import Checkpoints

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 450, 1, seed=3)
    return root


def experiment(root, *keys):
    settings = {
        "data_root": root,
        "train_data": root / "train.parquet",
        "valid_split.method": "stratified",
        "max_len": 8,
        "epochs": 2,
        "batch_size": 100,
        "valid_split.fraction": 0.25,
        "net_dropout": 0.3,
        "num_workers": 0,
        "early_stop_patience": 5,
        "learning_rate": 0.01,
        "checkpoint_minutes": 1e-9,
    }
    overrides = [f"{k}={v}" for k, v in settings.items()] + list(keys)
    return load_experiment(CONFIGS, "FESeq_toy", overrides)


def fit(root, folder, *keys, **options):
    chosen = experiment(root, *keys)
    return train(chosen, prepare(chosen.dataset), CPU, folder, **options)


def outcome(run):
    history = [{**row, "rate": row["learning_rate"]} for row in run.metrics["history"]]
    return load_file(run.folder / "model.safetensors"), history


@pytest.fixture(scope="module")
def reference(data_root, tmp_path_factory):
    return outcome(fit(data_root, tmp_path_factory.mktemp("run") / "whole"))


def assert_same(run, reference):
    weights, history = outcome(run)
    assert history == reference[1]
    assert weights.keys() == reference[0].keys()
    assert all(torch.equal(weights[k], reference[0][k]) for k in weights)


class Killer(pl.Callback):
    """Ends the process's training at the n-th call of a hook, as a kill would: nothing is saved."""

    def __init__(self, hook, at):
        self.left = at
        setattr(self, hook, self.count)

    def count(self, *_, **__):
        self.left -= 1
        if self.left == 0:
            raise Killed


def killed_at(monkeypatch, hook, at):
    made = module.new_trainer

    def trainer(config, device, logs, callbacks, processes):
        return made(config, device, logs, [*callbacks, Killer(hook, at)], processes)

    monkeypatch.setattr(module, "new_trainer", trainer)


@pytest.mark.parametrize(
    ("hook", "at"),
    [
        ("on_train_start", 1),
        ("on_train_batch_end", 3),
        ("on_validation_batch_end", 1),
        ("on_validation_end", 1),
        ("on_validation_batch_start", 4),
    ],
)
def test_a_killed_training_resumes_to_the_same_weights(
    data_root, tmp_path, monkeypatch, reference, hook, at
):
    with monkeypatch.context() as patch:
        killed_at(patch, hook, at)
        with pytest.raises(Killed):
            fit(data_root, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert_same(fit(data_root, tmp_path / "run"), reference)
    assert not (tmp_path / "run.partial").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("hook", "at"), [("on_train_batch_end", 5), ("on_validation_end", 1)])
def test_resuming_with_eval_steps_and_loader_processes(data_root, tmp_path, monkeypatch, hook, at):
    keys = ["eval_steps=3", "num_workers=1"]
    whole = outcome(fit(data_root, tmp_path / "whole", *keys))
    with monkeypatch.context() as patch:
        killed_at(patch, hook, at)
        with pytest.raises(Killed) as kept:
            fit(data_root, tmp_path / "run", *keys)
        assert not multiprocessing.active_children(), "Python's exit would wait for them"
        del kept
    assert_same(fit(data_root, tmp_path / "run", *keys), whole)


def test_resuming_after_several_kills(data_root, tmp_path, monkeypatch, reference):
    kills = 0
    for _ in range(9):
        with monkeypatch.context() as patch:
            killed_at(patch, "on_train_batch_end", 4)
            try:
                run = fit(data_root, tmp_path / "run")
                break
            except Killed:
                kills += 1
    assert kills >= 2
    assert_same(run, reference)


def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    data_root, tmp_path, monkeypatch, reference, capsys
):
    with monkeypatch.context() as patch:
        killed_at(patch, "on_train_batch_end", 7)
        with pytest.raises(Killed):
            fit(data_root, tmp_path / "run")
    kept = sorted((tmp_path / "run.partial" / "checkpoints").glob("step-*"))
    assert len(kept) == 2
    kept[1].write_bytes(kept[1].read_bytes()[:-100])
    assert_same(fit(data_root, tmp_path / "run"), reference)
    assert "trying the previous one" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_of_another_seed_is_skipped(data_root, tmp_path, monkeypatch, capsys):
    """It was resumed in silence: the rows of one seed, the weights of another."""
    for name, seed in (("one", 1), ("two", 2)):
        with monkeypatch.context() as patch:
            killed_at(patch, "on_train_batch_end", 3)
            with pytest.raises(Killed):
                fit(data_root, tmp_path / name, f"seed={seed}", "epochs=1")
    one, two = (tmp_path / f"{name}.partial" / "checkpoints" for name in ("one", "two"))
    for kept in two.glob("step-*"):
        kept.unlink()
    for kept in one.glob("step-*"):
        shutil.copy(kept, two)
    capsys.readouterr()
    found = fit(data_root, tmp_path / "two", "seed=2", "epochs=1")
    assert "belongs to another training" in " ".join(capsys.readouterr().err.split())
    assert_same(found, outcome(fit(data_root, tmp_path / "alone", "seed=2", "epochs=1")))


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_batch_start"])
def test_a_signal_stops_at_the_next_safe_point(data_root, tmp_path, monkeypatch, reference, hook):
    class Asking(StopSignal):
        pass

    asking = Asking()
    calls = []

    def ask(*_, **__):
        calls.append(1)
        if len(calls) == 1:
            asking.number = 15

    with monkeypatch.context() as patch:
        patch.setattr(module, "StopSignal", lambda: asking)
        patch.setattr(Killer, "count", ask)
        killed_at(patch, hook, 1)
        with pytest.raises(Stopped, match="the same command resumes"):
            fit(data_root, tmp_path / "run", "checkpoint_minutes=60")
    assert len(list((tmp_path / "run.partial" / "checkpoints").glob("step-*"))) == 1
    run = fit(data_root, tmp_path / "run", "checkpoint_minutes=60")
    assert_same(run, reference)


def test_a_training_resumes_after_the_project_moved(data_root, tmp_path, monkeypatch, reference):
    """As where a notebook's disk is mounted somewhere else the next time."""
    started = []
    loaded = Checkpoints.on_load_checkpoint
    monkeypatch.setattr(
        Checkpoints, "on_load_checkpoint", lambda *a: (started.append(1), loaded(*a))
    )
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(data_root, before)
    with monkeypatch.context() as patch:
        killed_at(patch, "on_train_batch_end", 3)
        with pytest.raises(Killed):
            fit(before, before / "run", f"test_data={before / 'test.parquet'}")
    before.rename(after)
    run = fit(after, after / "run", f"test_data={after / 'test.parquet'}", "num_workers=1")
    assert started
    assert_same(run, reference)
    assert run.experiment.dataset.test_data == after / "test.parquet"


def test_fresh_or_another_config_starts_over(data_root, tmp_path, monkeypatch, reference):
    started = []
    loaded = Checkpoints.on_load_checkpoint
    monkeypatch.setattr(
        Checkpoints, "on_load_checkpoint", lambda *a: (started.append(1), loaded(*a))
    )
    for folder, keys, options in (("a", ["seed=3"], {}), ("b", [], {"fresh": True})):
        with monkeypatch.context() as patch:
            killed_at(patch, "on_train_batch_end", 3)
            with pytest.raises(Killed):
                fit(data_root, tmp_path / folder, *keys)
        assert_same(fit(data_root, tmp_path / folder, **options), reference)
    assert not started
    # What was done of the other config is not lost to this one.
    assert list((tmp_path / "a.partial" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "b.partial").exists()
    fit(data_root, tmp_path / "a", "seed=3")
    assert started
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["a", "a.1", "b"]
    assert load_run(tmp_path / "a.1").experiment.training.seed != 3


def test_a_finished_run_is_reused_and_kept_by_another_training(
    data_root, tmp_path, monkeypatch, capsys
):
    first = fit(data_root, tmp_path / "run", "epochs=1")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files_in(first.folder)}
    with monkeypatch.context() as patch:
        killed_at(patch, "on_train_start", 1)
        again = fit(data_root, tmp_path / "run", "epochs=1", "num_workers=1")
    assert "this training is finished" in capsys.readouterr().err
    assert again.metrics == first.metrics
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
    fit(data_root, tmp_path / "run", "epochs=1", fresh=True)
    fit(data_root, tmp_path / "run")
    assert "the earlier run is kept as" in " ".join(capsys.readouterr().err.split())
    kept = {p.name: len(load_run(p).metrics["history"]) for p in tmp_path.iterdir() if p.is_dir()}
    assert kept == {"run": 2, "run.1": 1, "run.2": 1}
    assert all(
        (tmp_path / "run.1" / p.relative_to(first.folder)).read_bytes() == content
        for p, (content, _) in before.items()
    )


def test_a_changed_run_is_trained_again(data_root, tmp_path):
    run = fit(data_root, tmp_path / "run", "epochs=1")
    expected = outcome(run)
    (run.folder / "model.safetensors").unlink()  # what has been read of it is still mapped
    (run.folder / "model.safetensors").write_bytes(b"damaged")
    assert_same(fit(data_root, tmp_path / "run", "epochs=1"), expected)
    assert (tmp_path / "run.1" / "model.safetensors").read_bytes() == b"damaged"


def test_a_run_with_a_changed_fingerprint_is_trained_again(data_root, tmp_path):
    run = fit(data_root, tmp_path / "run", "epochs=1")
    file = run.folder / "made_from.json"
    text = file.read_text()
    assert text.count('"epochs": 1') == 1
    file.write_text(text.replace('"epochs": 1', '"epochs": 2'))
    assert len(fit(data_root, tmp_path / "run", "epochs=2").metrics["history"]) == 2


def test_folders_that_are_not_runs_are_not_touched(data_root, tmp_path):
    def own(name):
        file = tmp_path / name / "thesis" / "draft.tex"
        file.parent.mkdir(parents=True)
        file.write_text("three years")
        return file

    first = fit(data_root, tmp_path / "run", "epochs=1").folder
    files = [own(name) for name in ("run.old", "run.partial", "run.partial.2", "run.1")]
    fit(data_root, first, "epochs=1", fresh=True)
    assert (tmp_path / "run.2" / "run.json").is_file()
    shutil.rmtree(first)
    files.append(own("run"))
    with pytest.raises(UserError, match="already exists, and TossCTR did not make it"):
        fit(data_root, first, "epochs=1")
    for file in files:
        assert file.read_text() == "three years"
        assert [*file.parent.parent.iterdir()] == [file.parent]


def files_in(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


class Steps:
    """Kills at the n-th step that changes what is on the disk."""

    def __init__(self, patch, kill_at):
        self.left = kill_at
        for owner, name in (
            (os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (Path, "rename"),
            (Path, "unlink"), (Path, "rmdir"), (Path, "touch"), (Path, "mkdir"),
        ):  # fmt: skip
            patch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, real):
        def step(*args, **options):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return real(*args, **options)

        return step


def test_a_kill_while_a_run_is_placed_loses_nothing(data_root, tmp_path, monkeypatch):
    """From the last validation of a run over an earlier one."""
    fit(data_root, tmp_path / "before" / "run", "epochs=1")
    begun = []
    with monkeypatch.context() as patch:
        begin = RunWriter.begin
        patch.setattr(
            RunWriter, "begin", lambda w, *a, **k: (begun.append((a, k)), begin(w, *a, **k))
        )
        killed_at(patch, "on_fit_end", 1)
        with pytest.raises(Killed):
            fit(data_root, tmp_path / "before" / "run")
    (arguments, options), metrics = begun[0], load_run(tmp_path / "before" / "run").metrics

    def finished(root):
        writer = RunWriter(root / "run")
        writer.begin(*arguments, **options)
        if not writer.finished:
            writer.finish(metrics)
        if writer.folder != writer.final:
            writer.place()

    def contents(root):
        # Temporary files are left to a process that is killed; this one lives on.
        paths = {
            p.relative_to(root): p
            for p in root.rglob("*")
            if "logs" not in p.parts and p.suffix != ".tmp"
        }
        changing = {"metrics.json", "run.json", "results.csv"}  # the time is in them
        return {
            str(name): path.read_bytes() if path.is_file() and path.name not in changing else b""
            for name, path in paths.items()
        }, len((root / "results.csv").read_text().splitlines())

    whole = shutil.copytree(tmp_path / "before", tmp_path / "whole")
    finished(whole)
    expected = contents(whole)
    assert load_run(whole / "run.1").metrics["best"]["epoch"] == 1
    assert "run.partial" not in expected[0]
    for kill_at in range(1000):
        root = shutil.copytree(tmp_path / "before", tmp_path / f"{kill_at}")
        try:
            with monkeypatch.context() as patch:
                Steps(patch, kill_at)
                finished(root)
        except Killed:
            finished(root)
            assert contents(root) == expected
        else:
            break
    assert kill_at > 20


def test_a_checkpoint_round_trips(tmp_path):
    tied = torch.arange(6.0)
    state = {
        "training": "this",
        "state": {0: {"step": torch.tensor(3.0), "exp": tied}, 1: {}},
        "groups": [{"betas": (0.9, 0.999), "params": [0, 1], "fused": True, "none": None}],
        "best": float("-inf"),
        "view": tied[2:4],
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
        "bytes": torch.get_rng_state(),
        "empty": torch.empty(0, 4),
    }
    write_checkpoint(tmp_path / "step-000000001.safetensors", state)
    _, back = newest_checkpoint(tmp_path, "this")
    assert repr(back) == repr(state)
    assert newest_checkpoint(tmp_path, "another") is None


@pytest.mark.parametrize("at", [0, 9, 200, -1])
def test_a_changed_checkpoint_is_refused(tmp_path, at):
    path = tmp_path / "step-000000001.safetensors"
    write_checkpoint(path, {"w": torch.arange(300.0), "n": 3})
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
    assert newest_checkpoint(tmp_path, "this") is None


def test_a_checkpoint_refuses_arbitrary_objects(tmp_path):
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "x", {"o": object()})
    assert list(tmp_path.iterdir()) == []
