"""The search: trials in one SQLite file, shared by any number of processes, none lost to a kill.

<folder>/study.db        Optuna's storage: every trial's values, validations and state
<folder>/workers/        a lock for each process at work; a trial whose process is gone is queued
                         again and goes on in the same run's folder, from its last checkpoint
<folder>/trials/N/       the runs of running trials, and of the best one
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from tossctr.config.loader import load_experiment
from tossctr.config.schema import Experiment
from tossctr.data.prepare import Prepared
from tossctr.errors import UserError
from tossctr.files import locked, remove, writing
from tossctr.progress import say
from tossctr.training.checks import check_model
from tossctr.training.trainer import train
from tossctr.tuning.space import Dimension

STARTUP_TRIALS = 5  # drawn at random, and before which none is pruned
WAIT_S = 0.5  # for trials of other processes
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
WORKER, HOME = "worker", "home"  # of a trial: the process at work, and the number of its folder


class Search:
    """A study in a folder.

    Args:
        config, expid, overrides: the experiment, as for `load_experiment`.
        space: what to vary.
        folder: where the study is kept; one there is gone on with.
        fresh: start over.

    Raises:
        UserError: the study there is of another experiment or space, or not to be read.
    """

    def __init__(
        self,
        config: Path,
        expid: str,
        overrides: list[str],
        space: Mapping[str, Dimension],
        folder: Path,
        *,
        fresh: bool = False,
    ) -> None:
        self.config, self.expid, self.overrides = config, expid, overrides
        self.space, self.folder = space, folder
        self.experiment = load_experiment(config, expid, overrides)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._alone():
            if fresh:
                for name in ("study.db", "trials", "workers"):
                    remove(folder / name)
            self.study = self._open()

    def run(self, trials: int, data: Prepared, device: torch.device) -> None:
        """Work until `trials` of the study have ended, by this process or others."""
        with self._at_work() as worker:
            while (trial := self._next(trials, worker)) is not None:
                self._try(trial, data, device)

    def finished(self) -> list[FrozenTrial]:
        """The trials that came to an end or were pruned."""
        return self.study.get_trials(deepcopy=False, states=DONE)

    def _open(self) -> optuna.Study:
        file = self.folder / "study.db"
        sampled = {k: d.model_dump(mode="json") for k, d in self.space.items()}
        made_from = {
            "experiment": self.experiment.model_dump(mode="json", serialize_as_any=True),
            "space": sampled,
        }
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            study = optuna.create_study(
                storage=storage,
                study_name=self.expid,
                direction="maximize" if self._sign > 0 else "minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
                load_if_exists=True,
            )
            before = study.user_attrs.get("made_from")
        except Exception as error:  # Optuna's, SQLAlchemy's and Alembic's have no common base
            raise UserError(
                f"cannot be opened: {str(error).splitlines()[0]}", file=file, remedy="give --fresh"
            ) from error
        if before is None:
            study.set_user_attr("made_from", made_from)
        elif before != json.loads(json.dumps(made_from)):
            raise UserError(
                "the study here is of another config or space", file=file,
                remedy="give --fresh, or another --output",
            )  # fmt: skip
        return study

    @property
    def _sign(self) -> float:
        return 1.0 if self.experiment.training.monitor_mode == "max" else -1.0

    def _next(self, trials: int, worker: str) -> optuna.Trial | None:
        """A trial for this process, as soon as one is to be done; None when all have ended."""
        while True:
            with self._alone():
                self._queue_abandoned(worker)
                found = self.study.get_trials(deepcopy=False)
                ended = sum(t.state in DONE for t in found)
                queued = sum(t.state == TrialState.WAITING for t in found)
                running = sum(t.state == TrialState.RUNNING for t in found)
                if ended >= trials:
                    return None
                if queued or ended + running < trials:
                    # Seeded by the number of trials, so that no two processes draw the same.
                    self.study.sampler = optuna.samplers.TPESampler(
                        seed=self.experiment.training.seed + len(found),
                        n_startup_trials=STARTUP_TRIALS,
                        constant_liar=True,
                    )
                    trial = self.study.ask()
                    trial.set_user_attr(WORKER, worker)
                    if HOME not in trial.user_attrs:
                        trial.set_user_attr(HOME, trial.number)
                    for key, dimension in self.space.items():
                        dimension.suggest(trial, key)  # while alone: it is known before work
                    return trial
            time.sleep(WAIT_S)

    def _queue_abandoned(self, own: str) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(WORKER)
            # Its own lock, a process must not try: to close the file would let go of it.
            if worker == own or (worker and _is_held(self.folder / "workers" / worker)):
                continue
            home = trial.user_attrs.get(HOME, trial.number)
            # Queued first: a kill between the two makes a trial twice, not never.
            self.study.enqueue_trial(trial.params, user_attrs={HOME: home})
            self.study.tell(trial.number, state=TrialState.FAIL)
            say(f"trial {home} was abandoned: it is queued again")

    def _try(self, trial: optuna.Trial, data: Prepared, device: torch.device) -> None:
        chosen = {key: dimension.suggest(trial, key) for key, dimension in self.space.items()}
        home = self.folder / "trials" / str(trial.user_attrs[HOME])
        shown = ", ".join(f"{key} {value}" for key, value in chosen.items())
        say(f"trial {trial.user_attrs[HOME]}: {shown}")
        try:
            experiment = load_experiment(
                self.config, self.expid, [*self.overrides, *as_overrides(chosen)]
            )
            check_model(experiment)
            run = train(experiment, data, device, home, after_validation=self._pruner(trial))
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            remove(home.with_name(f"{home.name}.partial"))
            say(f"trial {trial.user_attrs[HOME]}: pruned")
            return
        except UserError as error:
            # Values that do not go together are no reason to end the search; all failing is.
            say(f"trial {trial.user_attrs[HOME]}: {error.line()}")
            self.study.tell(trial, state=TrialState.PRUNED)
            if not any(t.intermediate_values for t in self.finished()) and (
                len(self.finished()) >= STARTUP_TRIALS
            ):
                raise
            return
        value = float(run.metrics["best"]["monitor"])
        with self._alone():
            self.study.tell(trial, value)
            self._keep_best_only()
        say(f"trial {trial.user_attrs[HOME]}: {value:.6f}")

    @staticmethod
    def _pruner(trial: optuna.Trial) -> Callable[[int, float], None]:
        def report(step: int, value: float) -> None:
            if not math.isnan(value):
                trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        return report

    def _keep_best_only(self) -> None:
        best = str(self.study.best_trial.user_attrs[HOME])
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            home = str(trial.user_attrs[HOME])
            if home != best:
                remove(self.folder / "trials" / home)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Not `files.locked`, which says that it waits: here all do, for moments.
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "lock").open("a")
        with handle:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _at_work(self) -> Iterator[str]:
        worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = self.folder / "workers" / worker
        with locked(file, f"the worker {worker}", keep=False):
            yield worker


def as_overrides(chosen: Mapping[str, Any]) -> list[str]:
    """Values as `--set` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in chosen.items()]


def chosen_values(trial: FrozenTrial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """A trial's values by key."""
    return {
        key: json.loads(value) if space[key].choices is not None else value
        for key, value in trial.params.items()
    }


def tuned(search: Search) -> Experiment:
    """The experiment with the best trial's values."""
    chosen = chosen_values(search.study.best_trial, search.space)
    return load_experiment(search.config, search.expid, [*search.overrides, *as_overrides(chosen)])


def _is_held(file: Path) -> bool:
    """Whether a process holds a lock file; the system lets go of a dead one's."""
    try:
        with file.open("r+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    file.unlink(missing_ok=True)
    return False
