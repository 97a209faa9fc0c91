"""A search over tiny data, in two processes of which one is killed; its files and refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment

optuna = pytest.importorskip("optuna", reason="the extra tune is not installed")

from tossctr.tuning.result import check_results, write_result  # noqa: E402
from tossctr.tuning.space import read_space  # noqa: E402
from tossctr.tuning.study import NUMBER, Search  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")
SPACE = """
num_leaves: {low: 2, high: 12}
lambda_l2: {low: 0.1, high: 10.0, log: true}
half_lives: {choices: [[8], [2, 16]]}
"""


@pytest.fixture
def root(tmp_path):
    synthesize(tmp_path / "raw", 1500, 10, seed=3)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def keys(root, rounds):
    return [
        f"data_root={root / 'data'}", f"train_data={root / 'raw' / 'train.parquet'}",
        f"model_root={root / 'checkpoints'}", "valid_split.method=stratified",
        "valid_split.fraction=0.4", f"num_boost_round={rounds}", "top_events=5", "eval_rounds=1",
        "early_stopping_rounds=10000",
    ]  # fmt: skip


def search_in(root, rounds=6, **options):
    config, given = root / "configs", keys(root, rounds)
    space = read_space(root / "space.yaml", load_experiment(config, "LightGBM_toy", given))
    return Search(config, "LightGBM_toy", given, space, root / "study", **options)


def started(root, rounds, trials):
    words = [w for key in keys(root, rounds) for w in ("--set", key)]
    return subprocess.Popen(
        [sys.executable, "-m", "tossctr", "tune", "--config", str(root / "configs"),
         "--expid", "LightGBM_toy", "--space", str(root / "space.yaml"), "--gpu", "-1",
         "--trials", str(trials), "--output", str(root / "study"), *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_of_which_one_is_killed_finish_every_trial(root):
    rounds, trials = 40, 6
    data = prepare(load_experiment(root / "configs", "LightGBM_toy", keys(root, rounds)).dataset)
    search = search_in(root, rounds)
    killed, other = started(root, rounds, trials), started(root, rounds, trials)
    deadline = time.monotonic() + 240
    while True:  # until the process to kill is running a trial
        assert time.monotonic() < deadline
        assert killed.poll() is None
        running = search.study.get_trials(states=[optuna.trial.TrialState.RUNNING])
        mine = [t for t in running
                if t.user_attrs.get("worker", "").startswith(f"{killed.pid}-")
                and t.intermediate_values]  # fmt: skip
        if mine:
            break
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    _, said = other.communicate(timeout=240)
    assert other.returncode == 0, said
    search.run(trials, data, CPU)  # all trials are finished

    found = search.study.get_trials()
    ended = [t.user_attrs[NUMBER] for t in found if t.state in (
        optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)]  # fmt: skip
    assert len(ended) == len(set(ended)) == trials
    lost = mine[0].user_attrs[NUMBER]
    again = [t for t in found if t.user_attrs[NUMBER] == lost]
    assert len(again) == 2
    assert again[0].params == again[1].params
    assert again[0].state == optuna.trial.TrialState.FAIL
    assert lost in ended
    assert all(t.state.is_finished() for t in found)
    # All trials have different values, whichever process drew them.
    assert len({json.dumps(t.params) for t in found}) == trials
    result = json.loads((root / "study" / "tune.json").read_text())
    assert len(result["trials"]) == trials
    assert result["importance"].keys() == {"num_leaves", "lambda_l2", "half_lives"}
    assert "| lambda_l2 | 0." in (root / "study" / "tune.md").read_text()


def test_the_best_trial_is_saved_as_an_experiment(root):
    search = search_in(root)
    data = prepare(search.experiment.dataset)
    search.run(3, data, CPU)
    result = write_result(search)
    values = [t["value"] for t in result["trials"] if t["value"] is not None]
    assert result["best"]["value"] == max(values)
    tuned = load_experiment(root / "configs", "LightGBM_toy_tuned")
    for key, value in result["best"]["values"].items():
        found = getattr(tuned.hyperparameters, key)
        assert found == (tuple(value) if isinstance(value, list) else value)
    assert tuned.hyperparameters.num_boost_round == 6
    # The best run is kept, the others are not.
    number = search.study.best_trial.user_attrs[NUMBER]
    kept = [f.name for f in (search.folder / "trials").iterdir() if f.is_dir()]
    assert kept == [str(number)]
    metrics = json.loads((search.folder / "trials" / str(number) / "metrics.json").read_text())
    assert metrics["best"]["monitor"] == result["best"]["value"]
    # The number of trials is the study's total.
    again = search_in(root)
    again.run(3, data, CPU)
    assert len(again.finished()) == 3
    again.run(4, data, CPU)
    assert len(again.finished()) == 4


def test_a_users_own_tuned_experiment_is_kept(root):
    search = search_in(root)
    path = root / "configs" / "model_config" / f"{search.expid}_tuned.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("# mine\n")
    with pytest.raises(UserError, match=r"TossCTR did not write it.*--force"):
        check_results(search)
    check_results(search, force=True)
    assert path.read_text() == "# mine\n"


def test_files_that_tune_did_not_make_are_kept(root):
    own = root / "study" / "trials" / "clinical.csv"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UserError, match="trials: already exists, and tune did not make it"):
            search_in(root, fresh=fresh)
    assert own.read_text() == "mine"


def test_another_studys_tuned_experiment_is_kept(root):
    search = search_in(root)
    data = prepare(search.experiment.dataset)
    search.run(1, data, CPU)
    file = Path(write_result(search)["experiment"])
    first = file.read_text()
    assert Path(write_result(search)["experiment"]) == file  # the same study replaces it
    search.folder = root / "another"
    search.folder.mkdir()
    write_result(search)
    assert file.with_name(f"{file.name}.1").read_text() == first
    file.write_text("mine: {base: LightGBM_toy}\n")
    with pytest.raises(UserError, match="TossCTR did not write it"):
        write_result(search)
    assert file.read_text() == "mine: {base: LightGBM_toy}\n"


def test_a_study_of_another_space_is_refused_unless_fresh(root):
    search_in(root)
    (root / "space.yaml").write_text("num_leaves: {low: 2, high: 5}\n")
    with pytest.raises(UserError, match="another config, search space or version"):
        search_in(root)
    assert not search_in(root, fresh=True).finished()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_leafs: {low: 2, high: 5}", "num_leaves"),
        ("max_rows: {low: 2, high: 5}", "max_rows is not a tunable key"),
        ("seed: {low: 2, high: 5}", "seed is not a tunable key"),
        ("num_leaves: {low: 5, high: 2}", "low is above high"),
        ("num_leaves: {low: 5}", "give low and high, or choices"),
        ("lambda_l2: {low: 0, high: 1, log: true}", "log needs low above 0"),
        ("lambda_l2: {lo: 0, high: 1}", "lo"),
        ("", "search space is empty"),
    ],
)
def test_an_invalid_space_is_refused(tmp_path, text, message):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_space(tmp_path / "space.yaml", load_experiment(CONFIGS, "LightGBM_toy"))


@pytest.mark.parametrize("file", sorted((CONFIGS / "tune").glob("*.yaml")), ids=lambda f: f.stem)
def test_the_projects_spaces_are_valid(file):
    space = read_space(file, load_experiment(CONFIGS, f"{file.stem}_toy"))
    for key, dimension in space.items():  # the ends of a range are valid values
        for value in dimension.choices or (dimension.low, dimension.high):
            load_experiment(CONFIGS, f"{file.stem}_toy", [f"{key}={json.dumps(value)}"])


def test_a_trial_with_a_bad_monitor_is_pruned(root):
    search = search_in(root)
    trial = search.study.ask()
    for _ in range(6):
        done = search.study.ask()
        for step in range(3):
            done.report(0.9, step)
        search.study.tell(done, 0.9)
    report = search._pruner(trial, baseline=False)
    with pytest.raises(optuna.TrialPruned):
        report(0, 0.1)
