"""The search: trials in one SQLite file, run by any number of processes, safe to kill.

<folder>/study.db        Optuna's storage: values, validations and state of every trial
<folder>/workers/        a lock file per running process (`workers`); a trial whose process died is
                         run again with the same values, from its last checkpoint
<folder>/trials/N/       the runs of running trials and of the best trial

Trial 0 is the experiment with its own values. Trials are numbered in the order they were drawn;
Optuna's numbers differ, as a repeated trial gets a new one. A draw depends only on the trial's
number and the earlier trials, so an interrupted search ends with the same trials.
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

VERSION = 2  # of the study's attributes
STARTUP_TRIALS = 5  # drawn at random and never pruned
WAIT_S = 0.5  # between polls for trials of other processes
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
FILES = ("study.db", "trials", "workers")
# Attributes of a trial: the process that runs it, whether it is trial 0, its values, and its number
# (of its folder), set once its values are drawn.
WORKER, BASELINE, VALUES, NUMBER = "worker", "baseline", "values", "number"


class Search:
    """A study in a folder.

    Args:
        config, expid, overrides: the experiment, as for `load_experiment`.
        space: the keys to search over.
        folder: of the study; an existing one is resumed.
        fresh: delete an existing study first.

    Raises:
        UserError: the existing study has another experiment or space, or cannot be read.
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
        self.sign = sign_of(self.experiment.training.monitor_mode)  # -1: a lower monitor is better
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._workers.exclusive():
            _refuse_foreign(folder)
            mark(folder, "study", among_others=True)
            if fresh:
                for name in FILES:
                    remove(folder / name)
            self.study = self._open()

    def run(self, trials: int, data: Prepared, device: torch.device) -> None:
        """Run trials until the study has `trials` finished ones, from this process or others."""
        with self._workers.registered():
            while (trial := self._next_trial(trials)) is not None:
                self._run_trial(trial, data, device)
            with self._workers.exclusive():
                self._keep_best_only()

    def finished(self) -> list[FrozenTrial]:
        """The completed and pruned trials, in the order they were drawn."""
        found = self.study.get_trials(deepcopy=False, states=DONE)
        return sorted(found, key=lambda trial: int(trial.user_attrs[NUMBER]))

    def _open(self) -> optuna.Study:
        file = self.folder / "study.db"
        made_from = {
            "experiment": self.experiment.model_dump(mode="json", serialize_as_any=True),
            "version": VERSION,
            "space": {key: d.model_dump(mode="json") for key, d in self.space.items()},
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
                "the study was made from another config, search space or version of TossCTR",
                file=file,
                remedy="give --fresh, or another --output",
            )
        if not study.get_trials(deepcopy=False):
            own = self._own_values()
            study.enqueue_trial(own, user_attrs={BASELINE: True, VALUES: own, NUMBER: 0})
        return study

    def _own_values(self) -> dict[str, Any]:
        """The experiment's own values that are inside the space, as Optuna stores them."""
        own = values_of(self.experiment, self.space)
        values = {key: self.space[key].stored(value) for key, value in own.items()}
        return {key: value for key, value in values.items() if value is not None}

    def values_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's values by key; of trial 0 also those outside the space."""
        own = values_of(self.experiment, self.space) if trial.user_attrs.get(BASELINE) else {}
        return {**own, **chosen_values(trial, self.space)}

    @property
    def best(self) -> FrozenTrial | None:
        """The completed trial with the best monitor, the first drawn of ties; None without any."""
        complete = [t for t in self.finished() if t.state == TrialState.COMPLETE]
        return max(complete, key=lambda t: self.sign * float(t.value or 0.0), default=None)

    def _next_trial(self, trials: int) -> optuna.Trial | None:
        """Wait for a trial that this process can run; None once `trials` have finished."""
        while True:
            with self._workers.exclusive():
                self._requeue_abandoned()
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
        """The next queued trial, or a new one, with its values drawn."""
        number = 1 + max(int(t.user_attrs.get(NUMBER, 0)) for t in found)  # trial 0 always exists
        # Seeded by the number: processes draw different trials, and a repeated draw is the same.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.experiment.training.seed + number,
            n_startup_trials=STARTUP_TRIALS,
            constant_liar=True,
        )
        trial = self.study.ask()
        trial.set_user_attr(WORKER, self._workers.own)
        self._values(trial)  # drawn under the lock, before training starts
        if NUMBER not in trial.user_attrs:
            trial.set_user_attr(VALUES, trial.params)
            trial.set_user_attr(NUMBER, number)
        return trial

    def _values(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's values by key; of trial 0 only those inside the space."""
        keys = self._own_values() if trial.user_attrs.get(BASELINE) else self.space
        return {key: self.space[key].suggest(trial, key) for key in self.space if key in keys}

    def _requeue_abandoned(self) -> None:
        """Mark trials of dead processes as failed, and queue them again with the same values."""
        found = self.study.get_trials(deepcopy=False)
        alive = {
            t.user_attrs[NUMBER] for t in found
            if t.state != TrialState.FAIL and self._is_alive(t) and NUMBER in t.user_attrs
        }  # fmt: skip
        for trial in found:
            if trial.state != TrialState.RUNNING or self._is_alive(trial):
                continue
            # Without a number its values were not drawn completely: the next draw is the same.
            number = trial.user_attrs.get(NUMBER)
            if number is not None and number not in alive:
                kept = {k: v for k, v in trial.user_attrs.items() if k != WORKER}
                self.study.enqueue_trial(kept[VALUES], user_attrs=kept)
                say(f"trial {number} was interrupted: running it again")
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _is_alive(self, trial: FrozenTrial) -> bool:
        """Whether a trial is queued, finished, or run by a process that is alive."""
        worker = trial.user_attrs.get(WORKER)
        return trial.state != TrialState.RUNNING or bool(worker and self._workers.is_alive(worker))

    def _run_trial(self, trial: optuna.Trial, data: Prepared, device: torch.device) -> None:
        chosen, number = self._values(trial), trial.user_attrs[NUMBER]
        baseline = trial.user_attrs.get(BASELINE, False)
        folder = self.folder / "trials" / str(number)
        shown = ", ".join(f"{key} {value}" for key, value in chosen.items())
        say(f"trial {number}: {'the unchanged experiment, ' if baseline else ''}{shown}")
        try:
            experiment = self._experiment(chosen, baseline)
            report = self._pruner(trial, baseline)
            run = train(experiment, data, device, folder, after_validation=report)
        except optuna.TrialPruned:
            with self._workers.exclusive():
                self.study.tell(trial, state=TrialState.PRUNED)
                self._keep_best_only()
            say(f"trial {number}: pruned")
            return
        except Untrainable as error:
            # Invalid values end only their trial, unless none of the first trials was valid.
            say(f"trial {number}: {error.line()}")
            self.study.tell(trial, state=TrialState.PRUNED)
            done = self.finished()
            if len(done) >= STARTUP_TRIALS and not any(t.intermediate_values for t in done):
                raise
            return
        value = float(run.metrics["best"]["monitor"])
        with self._workers.exclusive():
            self.study.tell(trial, value)
            self._keep_best_only()
        say(f"trial {number}: {value:.6f}")

    def _experiment(self, chosen: Mapping[str, Any], baseline: bool) -> Experiment:
        """The experiment of a trial.

        Raises:
            Untrainable: the combination of values is invalid.
            UserError: the config has become invalid.
        """
        if baseline:
            check_model(self.experiment)
            return self.experiment
        load_experiment(self.config, self.expid, self.overrides)  # are the files still valid?
        try:
            given = [*self.overrides, *as_overrides(chosen)]
            experiment = load_experiment(self.config, self.expid, given)
            check_model(experiment)
        except UserError as error:
            raise Untrainable(error.line()) from error
        return experiment

    def _pruner(self, trial: optuna.Trial, baseline: bool) -> Callable[[int, float], None]:
        """A callback that reports validations and prunes a bad trial, but never trial 0.

        Validations from before a kill are reported first, as the trial may resume after them.
        """
        reported = set[int]()

        def report(step: int, value: float) -> None:
            if step not in reported and not math.isnan(value):
                reported.add(step)
                trial.report(value, step)

        def report_or_prune(step: int, value: float) -> None:
            report(step, value)
            if not baseline and trial.should_prune():
                raise optuna.TrialPruned

        for earlier in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if earlier.user_attrs.get(NUMBER) == trial.user_attrs[NUMBER]:
                for step, value in sorted(earlier.intermediate_values.items()):
                    report(step, value)
        return report_or_prune

    def _keep_best_only(self) -> None:
        """Delete the runs of finished trials, except the best."""
        found = self.study.get_trials(deepcopy=False)
        kept = {t.user_attrs.get(NUMBER) for t in found if not t.state.is_finished()}
        if self.best is not None:
            kept.add(self.best.user_attrs[NUMBER])
        for number in {t.user_attrs.get(NUMBER) for t in found} - kept - {None}:
            remove_result(self.folder / "trials" / str(number), "run")


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder whose files of these names were not made by `tune`."""
    for name in FILES:
        if os.path.lexists(folder / name) and not is_made(folder, "study"):
            message, remedy = "already exists, and tune did not make it", "choose another --output"
            raise UserError(message, file=folder / name, remedy=remedy)
