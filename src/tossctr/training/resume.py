"""When a checkpoint is written, what is in it, and how a run goes on from one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from tossctr.progress import say
from tossctr.training.checkpoint import keep_newest, path_of_step
from tossctr.training.interruption import Stopped, StopSignal

# What Lightning's progress of a validation says when its first batch has begun: it then begins
# that validation anew, which a validation can be, as it changes nothing.
_VALIDATION_BEGUN = {
    "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
    "is_last_batch": False,
}


class Checkpoints(pl.Callback):
    """Writes a checkpoint every so many minutes, and when asked to stop.

    A checkpoint is taken after a training batch, or in the middle of a validation, which is then
    repeated. Not after a batch that a validation or the end of the epoch follows: Lightning would
    leave that out when going on.

    Args:
        folder: where the checkpoints go.
        minutes: between two.
        eval_steps: batches between validations; None: one an epoch.
        stop: asked after each batch.
        best: the weights that the monitor chose so far, to be put beside the current ones.
    """

    def __init__(
        self,
        folder: Path,
        *,
        minutes: float,
        eval_steps: int | None,
        stop: StopSignal,
        best: Callable[[], dict[str, Tensor]],
    ) -> None:
        self.folder = folder
        self.seconds = 60 * minutes
        self.eval_steps = eval_steps
        self.stop = stop
        self.best = best
        self._last = time.monotonic()
        self._generators: dict[str, Any] = {}
        self._restored: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stop.keep_listening()
        self._last = time.monotonic()
        if self._restored is not None:  # only now: setting up draws random numbers too
            _set_generators(self._restored)
            self._restored = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        batches = int(trainer.num_training_batches)
        last = index + 1 == batches
        seen = trainer.current_epoch * batches + index + 1
        if not last and not (self.eval_steps and seen % self.eval_steps == 0):
            self._generators = {}
            self._look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._generators = _generators()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        if self.stop.number is None and time.monotonic() - self._last < self.seconds:
            return
        trainer.save_checkpoint(path_of_step(self.folder, trainer.global_step))
        keep_newest(self.folder)
        self._last = time.monotonic()
        if self.stop.number is not None:
            raise Stopped(
                self.stop.number,
                f"stopped in epoch {trainer.current_epoch + 1} after step {trainer.global_step:,}: "
                "the same command goes on from here",
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        if trainer.validating:
            loops["epoch_loop.val_loop.batch_progress"] = _VALIDATION_BEGUN
        checkpoint["generators"] = self._generators or _generators()
        checkpoint["best"] = self.best()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._restored = checkpoint["generators"]
        say(f"going on from epoch {checkpoint['epoch'] + 1}, step {checkpoint['global_step']:,}")


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """The epoch that a checkpoint stands in, and the batches of it that have been trained on."""
    loops = checkpoint["loops"]["fit_loop"]
    epoch = int(loops["epoch_progress"]["current"]["processed"])
    return epoch, int(loops["epoch_loop.batch_progress"]["current"]["processed"])


def _generators() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_generators(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
