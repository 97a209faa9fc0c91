"""`fit_network`: train a network with Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from tossctr.cluster.processes import Processes
from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.loader import BatchRows, batches, ending_workers
from tossctr.data.rows import EncodedRows
from tossctr.errors import Untrainable, UserError
from tossctr.metrics.grouped import warn_of_missing_groups
from tossctr.metrics.monitor import Validations
from tossctr.models import build_model
from tossctr.models.layers.transformer import set_execution
from tossctr.progress import say
from tossctr.training.callbacks import LastValidation, MonitorRule, RowProgress
from tossctr.training.checkpoint import newest_checkpoint, read_checkpoint
from tossctr.training.family import Fit
from tossctr.training.folder import TrainingFolder
from tossctr.training.interruption import StopSignal
from tossctr.training.joint import JointStrategy
from tossctr.training.micro_batches import MicroBatches
from tossctr.training.module import CTRModule
from tossctr.training.resume import Checkpoints, SafeCheckpointIO, position

LOG_EVERY_STEPS = 10


class ManualUnscaling(MixedPrecision):
    """fp16 for `CTRModule`, which unscales gradients itself, to add penalties and clip before the
    step; the scaler refuses to unscale them twice."""

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizable, model: pl.LightningModule, closure: Any, **kwargs: Any
    ) -> Any:
        scaler = cast(torch.amp.GradScaler, self.scaler)
        closure()
        result = scaler.step(optimizer, **kwargs)  # type: ignore[arg-type]
        scaler.update()
        return result


def precision(name: Literal["32", "bf16", "16"], device: torch.device) -> Precision:
    """Lightning's plugin for the config key `precision`; weights are float32 with all of them."""
    if name == "32":
        return Precision()
    if name == "bf16":
        return MixedPrecision("bf16-mixed", device.type)
    return ManualUnscaling("16-mixed", device.type)


def fit_network(
    experiment: Experiment,
    train_rows: EncodedRows,
    valid_rows: EncodedRows,
    folder: TrainingFolder,
    how: Fit,
    micro_batches: MicroBatches,
) -> dict[str, Any]:
    """Train, keeping weights and checkpoints in `folder`.

    Args:
        experiment: what to train and how.
        train_rows, valid_rows: with the lengths chosen for training.
        folder: of the unfinished run.
        how: device and processes.
        micro_batches: how a batch is executed.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: a loss or monitor is not finite, or a checkpoint is of another model.
        Stopped: a signal requested it.
        PeerLost: another process has ended.
    """
    config, device, processes = experiment.training, how.device, how.processes
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = build_model(experiment.model, train_rows.features, experiment.hyperparameters)
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{experiment.expid}: {experiment.model}, {parameters:,} parameters, "
        f"{len(train_rows):,} train and {len(valid_rows):,} validation rows, on "
        + (f"{device}" if processes.alone else f"{processes.world_size} processes ({device.type})")
    )
    say(f"batches of {config.batch_size:,} rows: {micro_batches}")
    if config.verbose == 2:
        say(experiment.model_dump_json(indent=1, serialize_as_any=True))
    order = BatchRows(
        len(train_rows),
        config.batch_size,
        shuffle=config.shuffle,
        seed=config.seed,
        label=train_rows.labels,
        negative_sampling=config.negative_sampling,
    )
    group = None if config.group_id is None else valid_rows.groups(config.group_id)
    warn_of_missing_groups(group, config.group_id)
    valid_order = BatchRows(len(valid_rows), config.batch_size, shuffle=False)
    module = CTRModule(model, config, group, processes)
    module.micro_batch_events = micro_batches.micro_batch_events
    set_execution(model, checkpointing=micro_batches.gradient_checkpointing)
    start = _resume(folder, module, order, processes)
    progress = RowProgress(order, valid_order)
    rule = MonitorRule(
        config,
        keep=lambda: processes.first(lambda: folder.keep(model.state_dict())),
        after=how.after_validation,
    )
    stop = StopSignal()
    checkpoints = Checkpoints(
        folder.checkpoints,
        minutes=config.checkpoint_minutes,
        eval_steps=config.eval_steps,
        stop=stop,
        best=folder.best,
        training=folder.training,
        seed=config.seed,
        processes=processes,
    )
    callbacks = [rule, progress, checkpoints, LastValidation()]
    trainer = new_trainer(config, device, folder.folder / "logs", callbacks, processes)
    loader = partial(
        batches,
        share=(processes.rank, processes.world_size),
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    )
    train_batches, valid_batches = loader(train_rows, order), loader(valid_rows, valid_order)
    with ending_workers(train_batches, valid_batches), stop.listening():
        trainer.fit(module, train_batches, valid_batches, ckpt_path=start)
    best = processes.everywhere(lambda: _best(rule.validations, config))
    say(f"best in epoch {best['epoch']:.0f}")
    return {
        "best": best,
        "history": rule.validations.history,
        "parameters": parameters,
        "trained_rows": progress.trained_rows,
        "rows_per_s": progress.trained_rows / progress.train_seconds,
        "seconds": progress.train_seconds,
        "skipped_batches": module.skipped_batches,
    }


def _best(validations: Validations, config: TrainingConfig) -> dict[str, float]:
    if validations.best_row is None:
        raise Untrainable(
            "the predictions of every validation were NaN",
            key="learning_rate",
            value=config.learning_rate,
            remedy="lower it, or check the inputs for extreme numbers",
        )
    return validations.best_row


def _resume(
    folder: TrainingFolder, module: CTRModule, order: BatchRows, processes: Processes
) -> Path | None:
    """Restore row order and best weights from the newest checkpoint; returns its path."""
    found = newest_checkpoint(folder.checkpoints, folder.training) if processes.is_first else None
    name = processes.broadcast(None if found is None else found[0].name)
    if name is None:
        if processes.is_first:
            folder.forget_best()
        return None
    path = folder.checkpoints / name

    def restore() -> None:
        checkpoint = read_checkpoint(path) if found is None else found[1]
        _check_content(checkpoint, path)
        if _shapes(checkpoint["state_dict"]) != _shapes(module.state_dict()):
            raise UserError(
                "the checkpoint belongs to another version of the model",
                file=path,
                remedy="give --fresh",
            )
        if processes.is_first:
            if checkpoint["best"]:
                folder.keep(checkpoint["best"])
            else:
                folder.forget_best()
        order.resume(*position(checkpoint))

    processes.everywhere(restore)
    return path


def _check_content(checkpoint: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that lacks what resuming needs."""
    try:
        known = checkpoint["state_dict"], checkpoint["best"]
        tensors = [tensor for part in known for tensor in part.values()]
        if not all(isinstance(t, torch.Tensor) for t in tensors) or min(position(checkpoint)) < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError("the checkpoint is damaged", file=path, remedy="give --fresh") from error


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def new_trainer(
    config: TrainingConfig,
    device: torch.device,
    logs: Path,
    callbacks: list[pl.Callback],
    processes: Processes,
) -> pl.Trainer:
    """Lightning's trainer for a config, with its logs in the folder `logs`."""
    _quieten_lightning()
    # CSVLogger would overwrite its file, so a resumed run writes another one.
    number = len(list(logs.glob("csv*")))
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        strategy="auto" if processes.alone else JointStrategy(processes),
        use_distributed_sampler=False,  # `batches` distributes rows
        max_epochs=config.epochs,
        val_check_interval=config.eval_steps,
        check_val_every_n_epoch=None if config.eval_steps else 1,
        logger=[
            TensorBoardLogger(logs, name="", version="tensorboard"),
            CSVLogger(logs, name="", version=f"csv_{number}" if number else "csv"),
        ]
        if processes.is_first
        else False,
        callbacks=callbacks,
        # One process even inside a SLURM job, whose script is not one of its tasks.
        plugins=[
            SafeCheckpointIO(),
            precision(config.precision, device),
            *([LightningEnvironment()] if processes.alone else []),
        ],
        log_every_n_steps=LOG_EVERY_STEPS,
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # MonitorRule and Checkpoints save
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _quieten_lightning() -> None:
    """Suppress Lightning's banners and advice that does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*log_every_n_steps.*",
        ".*is not available.*",
        ".*your dataloader is not resumable.*",  # BatchRows is
        ".*sync_dist=True.*",  # metrics are over all processes
        ".*LeafSpec.* is deprecated.*",  # in Lightning's own code
    ):
        warnings.filterwarnings("ignore", message=text)
