"""The order of trials: the unchanged experiment first, then the same trials after any kill."""

import json

import pytest
import torch

from tossctr.errors import Untrainable, UserError
from tossctr.families.experiment import load_experiment

optuna = pytest.importorskip("optuna", reason="the extra tune is not installed")

from tossctr.tuning import study  # noqa: E402
from tossctr.tuning.result import write_result  # noqa: E402
from tossctr.tuning.space import read_space  # noqa: E402
from tossctr.tuning.study import NUMBER, Search  # noqa: E402

CONFIGS = {
    "dataset_config.yaml": """
few:
    train_data: nothing.parquet  # no training reads it
    label_col: {name: y}
    feature_cols: [{name: s, type: sequence, dtype: str, splitter: ","}]
""",
    "model_config.yaml": """
mine: {model: LightGBM, dataset_id: few, num_leaves: 7, lambda_l2: 10, half_lives: [4, 16, 64]}
""",
}
CPU = torch.device("cpu")
SPACE = """
num_leaves: {low: 2, high: 12}
lambda_l2: {low: 0.1, high: 100.0, log: true}
half_lives: {choices: [[8], [4, 16, 64]]}
min_gain_to_split: {low: 0.01, high: 1.0}
"""
OWN = {"num_leaves": 7, "lambda_l2": 10.0, "half_lives": [4.0, 16.0, 64.0], "min_gain_to_split": 0}


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` catches it."""


class Trained:
    """A fake run whose monitor is a function of the trial's values."""

    def __init__(self, experiment):
        options = experiment.hyperparameters
        self.monitor = 0.7 - 0.01 * abs(options.num_leaves - 9) - 0.001 * options.lambda_l2
        self.monitor += 0.01 * len(options.half_lives) - 0.02 * options.min_gain_to_split
        self.metrics = {"best": {"monitor": self.monitor}}


@pytest.fixture
def root(tmp_path):
    for name, text in CONFIGS.items():
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / name).write_text(text)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture(autouse=True)
def trainings(monkeypatch):
    """Replaces `train` with a fake; the folders' numbers in the order of training."""
    made = []

    def train(experiment, data, device, folder, *, after_validation):
        made.append(int(folder.name))
        found = Trained(experiment)
        folder.mkdir(parents=True, exist_ok=True)
        for step in range(4):
            after_validation(step, found.monitor - 0.1 / (1 + step))
        return found

    monkeypatch.setattr(study, "train", train)
    return made


def search_in(root, name="study", **options):
    config = root / "configs"
    space = read_space(root / "space.yaml", load_experiment(config, "mine"))
    return Search(config, "mine", [], space, root / name, **options)


def summaries(search):
    """Number, state, value, parameters and validations of each finished trial."""
    return [
        (t.user_attrs[NUMBER], t.state, t.value, t.params, t.intermediate_values)
        for t in search.finished()
    ]


def test_trial_0_is_the_unchanged_experiment_and_a_worse_one_is_not_saved(root):
    search = search_in(root)
    search.run(1, None, CPU)
    result = write_result(search)
    assert result["best"]["value"] == pytest.approx(0.7 - 0.02 - 0.01 + 0.03)
    assert (
        result["best"]["values"] == OWN
    )  # also min_gain_to_split, whose value is outside the space
    saved = load_experiment(root / "configs", "mine_tuned")
    itself = load_experiment(root / "configs", "mine")
    assert saved.hyperparameters == itself.hyperparameters
    assert saved.training == itself.training
    search.run(12, None, CPU)
    best = write_result(search)["best"]["value"]
    assert best == max(t.value for t in search.finished() if t.value is not None)
    assert best > result["best"]["value"]
    assert {"num_leaves", "lambda_l2"} <= write_result(search)["importance"].keys()


@pytest.mark.parametrize(("monitor", "best"), [("AUC", max), ("logloss", min)])
def test_the_table_starts_with_the_best_trial(root, monitor, best):
    config = root / "configs"
    keys = [f"monitor={monitor}"]
    space = read_space(root / "space.yaml", load_experiment(config, "mine", keys))
    search = Search(config, "mine", keys, space, root / "study")
    search.run(8, None, CPU)
    values = [t.value for t in search.finished() if t.state.name == "COMPLETE"]
    assert min(values) < max(values)
    assert write_result(search)["best"]["value"] == best(values)
    first = (search.folder / "tune.md").read_text().splitlines()[2]
    assert float(first.split("|")[3]) == pytest.approx(best(values), abs=1e-6)


class _Kill:
    """Wraps a method: raises Killed at its n-th call, before or after the call itself."""

    def __init__(self, call, at, after):
        self.call, self.at, self.after, self.calls = call, at, after, 0

    def __get__(self, owner, kind):
        return lambda *a, **k: self(owner, *a, **k)

    def __call__(self, *arguments, **named):
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise Killed
        result = self.call(*arguments, **named)
        if self.calls == self.at and self.after:
            raise Killed
        return result


STUDY, TRIAL = optuna.Study, optuna.Trial
KILLS = [
    (owner, method, at, after)
    for owner, method, times in [
        (STUDY, "enqueue_trial", (1,)),
        (STUDY, "ask", (1, 2)),
        (TRIAL, "suggest_float", (1, 2)),
        (TRIAL, "set_user_attr", (1, 2, 3)),
        (TRIAL, "report", (1, 3)),
        (STUDY, "tell", (1,)),
        (STUDY, "tell", (3,)),  # after the random startup trials
        (STUDY, "ask", (2,)),
        (TRIAL, "suggest_float", (2,)),
        (TRIAL, "report", (2,)),
    ]
    for at in times
    for after in (False, True)
]


def test_an_interrupted_search_ends_with_the_same_trials(root, monkeypatch):
    """Killed once before and once after each kind of write to the study."""
    trials = 12
    whole = search_in(root, "whole")
    whole.run(trials, None, CPU)
    assert {t.state for t in whole.finished()} == set(study.DONE)  # some are pruned
    for owner, method, at, after in KILLS:
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, _Kill(getattr(owner, method), at, after))
            with pytest.raises(Killed):
                search_in(root).run(trials, None, CPU)
    search = search_in(root)
    assert study.STARTUP_TRIALS < len(search.finished()) < trials
    search.run(trials, None, CPU)
    assert summaries(search) == summaries(whole)
    assert [t[0] for t in summaries(search)] == list(range(trials))
    kept = [f.name for f in (search.folder / "trials").iterdir()]
    assert kept == [str(search.best.user_attrs[NUMBER])]
    assert not list((search.folder / "workers").iterdir())


def test_invalid_values_are_pruned_and_other_errors_end_the_search(root, monkeypatch):
    fake = study.train

    def train(experiment, *arguments, **named):
        if experiment.hyperparameters.num_leaves < 6:
            raise Untrainable("the training loss is not finite")
        return fake(experiment, *arguments, **named)

    monkeypatch.setattr(study, "train", train)
    search = search_in(root)
    search.run(8, None, CPU)
    failed = [t for t in search.finished() if t.params["num_leaves"] < 6]
    assert 0 < len(failed) < 8
    assert all(t.state == optuna.trial.TrialState.PRUNED for t in failed)

    def full(*_, **__):
        raise UserError("cannot be written: No space left on device")

    monkeypatch.setattr(study, "train", full)
    with pytest.raises(UserError, match="No space left"):
        search.run(12, None, CPU)
    assert len(search.finished()) == 8
    monkeypatch.setattr(study, "train", fake)  # the disk has space again
    search_in(root).run(12, None, CPU)
    assert len(search.finished()) == 12


def test_invalid_combinations_are_pruned_and_a_missing_config_ends_the_search(root, monkeypatch):
    def check_model(experiment):
        if experiment.hyperparameters.num_leaves != 7:
            raise UserError("num_leaves must be seven", key="num_leaves")

    monkeypatch.setattr(study, "check_model", check_model)
    search = search_in(root)
    search.run(4, None, CPU)
    assert [t.state.name for t in search.finished()] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    (root / "configs" / "model_config.yaml").write_text("other: {}\n")
    with pytest.raises(UserError, match="there is no experiment mine"):
        search.run(6, None, CPU)
    assert len(search.finished()) == 4


@pytest.mark.parametrize(
    ("dimension", "value", "stored"),
    [
        ("{low: 1, high: 3}", 2, 2),
        ("{low: 1, high: 3}", 2.0, None),
        ("{low: 1, high: 3}", 4, None),
        ("{low: 1, high: 3}", True, None),
        ("{low: 1.0, high: 3}", 2, 2.0),
        ("{low: 0.1, high: 1, log: true}", 0, None),
        ("{choices: [[4, 16], [8]]}", [4.0, 16.0], "[4, 16]"),
        ("{choices: [1, 2]}", True, None),
        ("{choices: [null, 2]}", None, "null"),
        ("{choices: [mean, target]}", "max", None),
    ],
)
def test_which_values_are_inside_a_dimension(root, dimension, value, stored):
    (root / "space.yaml").write_text(f"num_leaves: {dimension}\n")
    space = read_space(root / "space.yaml", load_experiment(root / "configs", "mine"))
    found = space["num_leaves"].stored(value)
    assert (found, type(found)) == (stored, type(stored))
    assert json.dumps(found) == json.dumps(stored)
