"""Early stopping and progress bars, as Lightning callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import lightning.pytorch as pl

from tossctr.config.schema import TrainingConfig
from tossctr.data.loader import BatchRows
from tossctr.metrics.monitor import Validations
from tossctr.progress import say, track
from tossctr.training.module import CTRModule

MIN_LEARNING_RATE = 1e-6


class MonitorRule(pl.Callback):
    """Saves the best weights, reduces the learning rate on a plateau, and stops early.

    The monitor is a weighted sum of metrics, e.g. AUC - logloss. After a validation that does not
    improve the best by more than 1e-6, or is NaN, the learning rate is divided by ten (down to
    1e-6). Training stops after `early_stop_patience` such validations in a row (feseq_spec
    section 6).

    Args:
        config: the experiment's training keys.
        keep: called at each new best to save the weights.
        after: called after each validation with its number, from 0, and the monitor.

    Attributes:
        validations: the history of validations, and the best of them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        keep: Callable[[], None],
        after: Callable[[int, float], None] | None = None,
    ) -> None:
        self.config = config
        self.keep = keep
        self.after = after
        self.validations = Validations(config.monitor, config.monitor_mode)

    def state_dict(self) -> dict[str, Any]:
        found = self.validations
        return {
            "best_row": found.best_row,
            "without_gain": found.without_gain,
            "history": found.history,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations.best_row = state_dict["best_row"]
        self.validations.history = state_dict["history"]
        self.validations.without_gain = state_dict["without_gain"]

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = cast(CTRModule, module).metrics
        is_best = self.validations.add(
            metrics,
            epoch=trainer.current_epoch + 1,
            step=trainer.global_step,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
        )
        shown = "  ".join(f"{name} {number:.6f}" for name, number in metrics.items())
        say(f"epoch {trainer.current_epoch + 1}: {shown}")
        if is_best:
            self.keep()
        elif self.validations.without_gain >= self.config.early_stop_patience:
            say(f"no improvement in {self.validations.without_gain} validations: stopping early")
            trainer.should_stop = True
        elif self.config.reduce_lr_on_plateau:
            self._reduce_learning_rate(trainer)
        if self.after is not None:
            history = self.validations.history
            self.after(len(history) - 1, history[-1]["monitor"])

    @staticmethod
    def _reduce_learning_rate(trainer: pl.Trainer) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = max(group["lr"] * 0.1, MIN_LEARNING_RATE)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        say(f"no improvement: learning rate reduced to {rate:g}")


class LastValidation(pl.Callback):
    """Validates after the last step too, if `eval_steps` does not divide the number of steps."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._schedule(trainer)  # training may resume in the middle of that validation

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        self._schedule(trainer)

    @staticmethod
    def _schedule(trainer: pl.Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if last_epoch and loop.batch_progress.current.ready == trainer.num_training_batches:
            trainer.val_check_batch = 1  # validate after every batch


class RowProgress(pl.Callback):
    """A progress bar in rows for each epoch and each validation.

    Args:
        train, valid: the rows of each batch, over all processes.

    Attributes:
        trained_rows: rows trained on so far.
        train_seconds: the time that took, without validation.
    """

    def __init__(self, train: BatchRows, valid: BatchRows) -> None:
        self.trained_rows = 0
        self.train_seconds = 0.0
        self._since = 0.0
        self._rows_of_epoch = 0
        self.order = {"train": train, "valid": valid}
        self._open: dict[str, ExitStack] = {}
        self._advance: dict[str, Callable[[int], None]] = {}

    def _start(self, stage: str, name: str) -> None:
        stack = ExitStack()
        self._advance[stage] = stack.enter_context(track(name, self.order[stage].rows_per_epoch))
        self._open[stage] = stack

    def _stop(self, stage: str) -> None:
        if stage in self._open:
            self._open.pop(stage).close()

    def state_dict(self) -> dict[str, Any]:
        running = time.monotonic() - self._since if "train" in self._open else 0.0
        return {
            "trained_rows": self.trained_rows,
            "train_seconds": self.train_seconds + running,
            "rows_of_epoch": self._rows_of_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trained_rows = state_dict["trained_rows"]
        self.train_seconds = state_dict["train_seconds"]
        self._rows_of_epoch = state_dict["rows_of_epoch"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        if "train" not in self._open:  # not at epoch start: training may resume within an epoch
            self._since = time.monotonic()
            self._start("train", f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")
            self._advance["train"](self._rows_of_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        rows = self.order["train"].rows_of(index)
        self.trained_rows += rows
        self._rows_of_epoch += rows
        self._advance["train"](rows)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if "train" in self._open:
            self.train_seconds += time.monotonic() - self._since
        self._since = time.monotonic()
        self._start("valid", "validate")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance["valid"](self.order["valid"].rows_of(index))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop("valid")
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop("train")
        self._rows_of_epoch = 0

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop("valid")
        self._stop("train")
