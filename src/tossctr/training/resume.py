"""Writing checkpoints during training, and resuming from one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from tossctr.cluster.processes import ALONE, Processes
from tossctr.progress import say
from tossctr.training.checkpoint import (
    checkpoint_path,
    read_checkpoint,
    remove_old_checkpoints,
    write_checkpoint,
)
from tossctr.training.generators import generator_states, set_generators
from tossctr.training.interruption import Stopped, StopSignal

# Lightning's progress when the first batch of a validation has begun; from it, Lightning repeats
# the validation, which is harmless because a validation changes nothing.
_VALIDATION_BEGUN = {
    "total": {"ready": 1, "started": 1, "processed": 0, "completed": 0},
    "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
    "is_last_batch": False,
}


class SafeCheckpointIO(CheckpointIO):
    """Reads and writes Lightning's checkpoints in this format."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(pl.Callback):
    """Writes a checkpoint at intervals, and when a stop is requested.

    Checkpoints are written after a training batch, or within a validation, which is repeated on
    resuming. Not after a batch that is followed by a validation or the end of the epoch, because
    Lightning would skip that on resuming.

    With several processes, a signal to any of them stops all, and rank 0 keeps the interval. Any
    number of processes can resume; those without a saved random state are seeded anew.

    Args:
        folder: of the checkpoints.
        minutes: between two checkpoints.
        eval_steps: batches between validations; None for one per epoch.
        stop: checked after each batch.
        best: returns the best weights so far, which a checkpoint contains too.
        training: a hash of the training, which a checkpoint contains.
        seed: for processes without a saved random state.
        processes: those that train together.
    """

    def __init__(
        self,
        folder: Path,
        *,
        minutes: float,
        eval_steps: int | None,
        stop: StopSignal,
        best: Callable[[], dict[str, Tensor]],
        training: str,
        seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        self.folder = folder
        self.seconds = 60 * minutes
        self.eval_steps = eval_steps
        self.stop = stop
        self.best = best
        self.training = training
        self.seed = seed
        self.processes = processes
        self._last = time.monotonic()
        self._generators: dict[str, Tensor] = {}
        self._restored: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.stop.keep_listening()
        self._last = time.monotonic()
        # Not earlier: the setup draws random numbers too.
        rank = self.processes.rank
        if self._restored is not None and rank < len(self._restored["cpu"]):
            set_generators({k: states[rank].clone() for k, states in self._restored.items()})
        elif not self.processes.alone:
            # Otherwise all processes would draw the same dropout.
            drawn = np.random.default_rng([self.seed, trainer.global_step, rank])
            torch.manual_seed(int(drawn.integers(2**63)))
        self._restored = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        batches = int(trainer.num_training_batches)
        last = index + 1 == batches
        seen = trainer.current_epoch * batches + index + 1
        if not last and not (self.eval_steps and seen % self.eval_steps == 0):
            self._generators = {}
            self.save_if_due(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._generators = generator_states()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.save_if_due(trainer)

    def save_if_due(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint if the interval has passed or a stop is requested.

        Raises:
            Stopped: a stop is requested.
        """
        elapsed = self.processes.is_first and time.monotonic() - self._last >= self.seconds
        stop, due = self.processes.largest([self.stop.number or 0, elapsed])
        if not stop and not due:
            return
        trainer.save_checkpoint(checkpoint_path(self.folder, trainer.global_step))
        if self.processes.is_first:
            remove_old_checkpoints(self.folder)
        self._last = time.monotonic()
        if stop:
            raise Stopped(
                stop,
                f"stopped in epoch {trainer.current_epoch + 1} after step {trainer.global_step:,}: "
                "the same command resumes from here",
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        if trainer.validating:
            loops["epoch_loop.val_loop.batch_progress"] = _VALIDATION_BEGUN
        own = self._generators or generator_states()
        checkpoint["generators"] = {
            name: self.processes.gather(state[None]) for name, state in own.items()
        }
        checkpoint["training"] = self.training
        checkpoint["best"] = self.best() if self.processes.is_first else {}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._restored = checkpoint["generators"]
        say(f"resuming from epoch {checkpoint['epoch'] + 1}, step {checkpoint['global_step']:,}")


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """The epoch of a checkpoint, and the number of its batches that have been trained on."""
    loops = checkpoint["loops"]["fit_loop"]
    epoch = int(loops["epoch_progress"]["current"]["processed"])
    return epoch, int(loops["epoch_loop.batch_progress"]["current"]["processed"])
