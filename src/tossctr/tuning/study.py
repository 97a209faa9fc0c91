"""The search: trials in one SQLite file, shared by any number of processes, none lost to a kill.

<folder>/study.db        Optuna's storage: every trial's values, validations and state
<folder>/workers/        a lock for each process at work (`workers`); a trial whose process is gone
                         is tried again with its values, from its last checkpoint
<folder>/trials/N/       the runs of running trials, and of the best one

Trial 0 is the experiment as it is. Trials are numbered as they were drawn; Optuna's own numbers,
which count a trial that was tried again as another one, are not used. What is drawn depends on the
number and the trials before it alone: a search that was killed ends like one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from tossctr.config.schema import Experiment
from tossctr.data.prepare import Prepared
from tossctr.errors import Untrainable, UserError
from tossctr.families.experiment import load_experiment
from tossctr.files import remove
from tossctr.folders import is_made, mark, remove_result
from tossctr.metrics.monitor import sign_of
from tossctr.progress import say
from tossctr.runs.checks import check_model
from tossctr.runs.train import train
from tossctr.tuning.space import Dimension, as_overrides, chosen_values, values_of
from tossctr.tuning.workers import Workers

STARTUP_TRIALS = 5  # drawn at random, and before which none is pruned
WAIT_S = 0.5  # for trials of other processes
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Of a trial: the process at work; whether it is the experiment as it is; all its values; and its
# number, which is that of its folder, set when it is drawn.
OURS = ("study.db", "trials", "workers")
WORKER, OWN, VALUES, HOME = "worker", "own", "values", "home"


class Search:
    """A study in a folder.

    Args:
        config, expid, overrides: the experiment, as for `load_experiment`.
        space: what to vary.
        folder: where the study is kept; one there is continued.
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
        self._workers = Workers(folder)
        self.experiment = load_experiment(config, expid, overrides)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._workers.alone():
            _refuse_foreign(folder)
            mark(folder, "study", among_others=True)
            if fresh:
                for name in OURS:
                    remove(folder / name)
            self.study = self._open()

    def run(self, trials: int, data: Prepared, device: torch.device) -> None:
        """Work until `trials` of the study have ended, by this process or others."""
        with self._workers.at_work():
            while (trial := self._next(trials)) is not None:
                self._try(trial, data, device)
            with self._workers.alone():
                self._keep_best_only()

    def finished(self) -> list[FrozenTrial]:
        """The trials that came to an end or were pruned, as they were drawn."""
        found = self.study.get_trials(deepcopy=False, states=DONE)
        return sorted(found, key=lambda trial: int(trial.user_attrs[HOME]))

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
                direction="maximize" if self.sign > 0 else "minimize",
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
        if not study.get_trials(deepcopy=False):
            own = self._own_values()
            study.enqueue_trial(own, user_attrs={OWN: True, VALUES: own, HOME: 0})
        return study

    def _own_values(self) -> dict[str, Any]:
        """The experiment's values that the space holds, as Optuna keeps them."""
        own = values_of(self.experiment, self.space)
        values = {key: self.space[key].stored(value) for key, value in own.items()}
        return {key: value for key, value in values.items() if value is not None}

    def values_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's values by key."""
        own = values_of(self.experiment, self.space) if trial.user_attrs.get(OWN) else {}
        return {**own, **chosen_values(trial, self.space)}

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best monitor, of equal ones the first drawn; None before any ended."""
        complete = [t for t in self.finished() if t.state == TrialState.COMPLETE]
        return max(complete, key=lambda t: self.sign * float(t.value or 0.0), default=None)

    @property
    def sign(self) -> float:
        """What makes a larger monitor the better one when it is multiplied by this."""
        return sign_of(self.experiment.training.monitor_mode)

    def _next(self, trials: int) -> optuna.Trial | None:
        """A trial for this process, as soon as one is to be done; None when all have ended."""
        while True:
            with self._workers.alone():
                self._queue_abandoned()
                found = self.study.get_trials(deepcopy=False)
                ended = sum(t.state in DONE for t in found)
                queued = sum(t.state == TrialState.WAITING for t in found)
                running = sum(t.state == TrialState.RUNNING for t in found)
                if ended >= trials:
                    return None
                if queued or ended + running < trials:
                    return self._draw(found)
            time.sleep(WAIT_S)

    def _draw(self, found: Sequence[FrozenTrial]) -> optuna.Trial:
        """The next trial that is queued, or a new one with all its values."""
        number = 1 + max(int(t.user_attrs.get(HOME, 0)) for t in found)  # trial 0 is there
        # A seed for each trial: no two processes draw the same, and a trial is always drawn alike.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.experiment.training.seed + number,
            n_startup_trials=STARTUP_TRIALS,
            constant_liar=True,
        )
        trial = self.study.ask()
        trial.set_user_attr(WORKER, self._workers.own)
        self._values(trial)  # while alone: they are known before any work
        if HOME not in trial.user_attrs:
            trial.set_user_attr(VALUES, trial.params)
            trial.set_user_attr(HOME, number)
        return trial

    def _values(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's values by key; of the experiment's own, those that the space holds."""
        own = trial.user_attrs.get(OWN, False)
        fixed = self._own_values() if own else self.space
        return {k: d.suggest(trial, k) for k, d in self.space.items() if k in fixed}

    def _queue_abandoned(self) -> None:
        found = self.study.get_trials(deepcopy=False)
        alive = {
            t.user_attrs[HOME] for t in found
            if t.state != TrialState.FAIL and self._is_alive(t) and HOME in t.user_attrs
        }  # fmt: skip
        for trial in found:
            if trial.state != TrialState.RUNNING or self._is_alive(trial):
                continue
            home = trial.user_attrs.get(HOME)  # without one it is drawn again, to the same values
            if home is not None and home not in alive:  # or a kill came after it was queued
                kept = {k: v for k, v in trial.user_attrs.items() if k != WORKER}
                self.study.enqueue_trial(kept[VALUES], user_attrs=kept)
                say(f"trial {home} was abandoned: it is tried again")
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _is_alive(self, trial: FrozenTrial) -> bool:
        """Whether a trial is queued, has ended, or is one that a process works on."""
        if trial.state != TrialState.RUNNING:
            return True
        worker = str(trial.user_attrs.get(WORKER, ""))
        return worker != "" and self._workers.is_alive(worker)

    def _try(self, trial: optuna.Trial, data: Prepared, device: torch.device) -> None:
        chosen, number = self._values(trial), trial.user_attrs[HOME]
        own = trial.user_attrs.get(OWN, False)
        home = self.folder / "trials" / str(number)
        shown = ", ".join(f"{key} {value}" for key, value in chosen.items())
        say(f"trial {number}: {'the experiment itself, ' if own else ''}{shown}")
        try:
            experiment = self._experiment(chosen, own)
            run = train(experiment, data, device, home, after_validation=self._pruner(trial, own))
        except optuna.TrialPruned:
            with self._workers.alone():
                self.study.tell(trial, state=TrialState.PRUNED)
                self._keep_best_only()
            say(f"trial {number}: pruned")
            return
        except Untrainable as error:
            # Values that do not train are no reason to end the search; all of them are.
            say(f"trial {number}: {error.line()}")
            self.study.tell(trial, state=TrialState.PRUNED)
            if not any(t.intermediate_values for t in self.finished()) and (
                len(self.finished()) >= STARTUP_TRIALS
            ):
                raise
            return
        value = float(run.metrics["best"]["monitor"])
        with self._workers.alone():
            self.study.tell(trial, value)
            self._keep_best_only()
        say(f"trial {number}: {value:.6f}")

    def _experiment(self, chosen: Mapping[str, Any], own: bool) -> Experiment:
        """The experiment of a trial.

        Raises:
            Untrainable: its values do not go together.
            UserError: the experiment itself cannot be trained.
        """
        if own:
            check_model(self.experiment)
            return self.experiment
        load_experiment(self.config, self.expid, self.overrides)  # the files are as they were
        try:
            given = [*self.overrides, *as_overrides(chosen)]
            experiment = load_experiment(self.config, self.expid, given)
            check_model(experiment)
        except UserError as error:
            raise Untrainable(error.line()) from error
        return experiment

    def _pruner(self, trial: optuna.Trial, own: bool) -> Callable[[int, float], None]:
        """Reports validations, and ends a trial that is behind; never the experiment itself.

        What the trial reported before its process was killed is reported first: it may go on from a
        checkpoint, and is judged by all its validations.
        """
        reported = set[int]()

        def report(step: int, value: float) -> None:
            if step not in reported and not math.isnan(value):
                reported.add(step)
                trial.report(value, step)

        def report_or_prune(step: int, value: float) -> None:
            report(step, value)
            if not own and trial.should_prune():
                raise optuna.TrialPruned

        for earlier in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if earlier.user_attrs.get(HOME) == trial.user_attrs[HOME]:
                for step, value in sorted(earlier.intermediate_values.items()):
                    report(step, value)
        return report_or_prune

    def _keep_best_only(self) -> None:
        """Remove the runs of trials that have ended, but for the best."""
        found = self.study.get_trials(deepcopy=False)
        kept = {t.user_attrs.get(HOME) for t in found if not t.state.is_finished()}
        if self.best is not None:
            kept.add(self.best.user_attrs[HOME])
        for trial in found:
            home = trial.user_attrs.get(HOME)
            if home is not None and home not in kept:
                remove_result(self.folder / "trials" / str(home), "run")


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder in which other files have the names of ours."""
    for name in OURS:
        if os.path.lexists(folder / name) and not is_made(folder, "study"):
            raise UserError(
                "is in the way, and not what tune made",
                file=folder / name,
                remedy="choose another --output",
            )
