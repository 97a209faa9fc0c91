"""`train`: an experiment and prepared data become a run's folder."""

from __future__ import annotations

import logging
import math
import resource
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.schema import Experiment, TrainingConfig
from tossctr.data.encoding.columns import resolve
from tossctr.data.features import FeatureMap
from tossctr.data.loader import BatchRows, batches
from tossctr.data.prepare import Prepared
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.evaluation.metrics import METRICS, evaluate
from tossctr.files import locked, sha256_of
from tossctr.models import build_model
from tossctr.models.layers.transformer import execute
from tossctr.progress import say
from tossctr.training.callbacks import MonitorRule, RowProgress
from tossctr.training.checkpoint import SafeCheckpointIO, newest, read_checkpoint
from tossctr.training.device import reuse_memory
from tossctr.training.interruption import StopSignal
from tossctr.training.joint import JointStrategy, check_joint
from tossctr.training.mlflow_log import log_run, require_mlflow
from tossctr.training.module import CTRModule
from tossctr.training.parts import Parts, fitting_parts
from tossctr.training.results import append_result
from tossctr.training.resume import Checkpoints, position
from tossctr.training.run_folder import Run, RunWriter, load_run
from tossctr.trees import TREES
from tossctr.trees.config import LightGBMConfig
from tossctr.trees.features import TreeFeatures
from tossctr.trees.training import check_trees, fit_trees

LOG_EVERY_STEPS = 10
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


def check_model(experiment: Experiment) -> None:
    """Build the experiment's model without weights, before hours are spent on its data.

    Raises:
        UserError: model options that do not fit the data set's features.
    """
    if experiment.training.mlflow_uri is not None:
        require_mlflow()
    dataset = experiment.dataset
    # Vocabularies are not known yet, and no option depends on their sizes.
    fields = tuple(c.field(3 if c.has_vocabulary else None) for c in resolve(dataset))
    features = FeatureMap(
        dataset_id=dataset.dataset_id, label=dataset.label_col.name, fields=fields
    ).with_lengths(dataset, experiment.training.max_len)
    if isinstance(experiment.hyperparameters, LightGBMConfig):
        check_trees(experiment)
        TreeFeatures(features, experiment.hyperparameters)
        return
    with torch.device("meta"):
        build_model(experiment.model, features, experiment.hyperparameters)


def train(
    experiment: Experiment,
    data: Prepared,
    device: torch.device,
    folder: Path,
    *,
    fresh: bool = False,
    memory: float | None = None,
    after_validation: Callable[[int, float], None] | None = None,
    processes: Processes = ALONE,
) -> Run:
    """Train to the end of patience or epochs and keep the best weights.

    A training that was cut short goes on from its last checkpoint, to the same end as if it had not
    been; on SIGINT and SIGTERM it keeps one more and stops. Several processes share each batch and
    take the same steps; the first one writes. Any number of them goes on from a checkpoint.

    Args:
        experiment: what to train and how.
        data: the prepared stores of its data set.
        device: where to train.
        folder: where the run goes; an earlier run there is replaced once this one is whole.
        fresh: start over.
        memory: bytes to fit into; None takes a GPU's free ones, and on a CPU counts nothing.
        after_validation: called after each with its number, from 0, and the monitor; what it raises
            ends the training.
        processes: those that train together, each calling this; the run folder is one that all see.

    Returns:
        The run, loaded back from its folder with the best weights.

    Raises:
        UserError: settings that do not fit the data, a loss or monitor that is not finite, another
            process at work in the folder, a disk that refuses, what several processes cannot train.
        Stopped: a signal asked for it.
        PeerLost: another of the processes has ended.
    """
    processes.everywhere(lambda: check_joint(experiment, processes.world_size))
    if device.type == "cpu":
        reuse_memory()
    with ExitStack() as stack:
        lock = locked(folder.with_name(f".{folder.name}.lock"), f"the run folder {folder}")
        processes.first(lambda: stack.enter_context(lock), others=_nothing)
        config = experiment.training
        features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
        writer = RunWriter(folder)
        processes.first(
            lambda: writer.begin(
                experiment, data.encoder, features, data=_identity(data), fresh=fresh
            ),
            others=_nothing,
        )
        if processes.tell(writer.finished):
            processes.first(writer.place, others=_nothing)
        else:
            train_rows = replace(data.train, features=features)
            valid_rows = replace(data.valid, features=features)
            processes.everywhere(lambda: _check_monitor(config, valid_rows))
            if experiment.model in TREES:
                metrics = fit_trees(experiment, train_rows, valid_rows, writer, after_validation)
            else:
                parts = processes.everywhere(
                    lambda: _parts(experiment, train_rows, device, memory, processes.world_size)
                )
                metrics = _fit(
                    experiment,
                    train_rows,
                    valid_rows,
                    device,
                    writer,
                    parts,
                    after_validation,
                    processes,
                )

            def finish() -> None:
                writer.finish({**metrics, "peak_mb": _peak_mb(device)})
                append_result(folder.parent, experiment, metrics["best"])
                if config.mlflow_uri is not None:
                    log_run(config.mlflow_uri, experiment, metrics)
                say(f"run kept in {folder}")

            processes.first(finish, others=_nothing)
        return processes.everywhere(lambda: load_run(folder))


def _nothing() -> None:
    """What the others do while the first process writes."""


def _parts(
    experiment: Experiment,
    rows: EncodedRows,
    device: torch.device,
    memory: float | None,
    processes: int,
) -> Parts:
    """The parts of a process's share of a batch."""
    if memory is None and device.type == "cpu":
        parts = Parts.uncounted(experiment.training, rows, device)
    else:
        parts = fitting_parts(experiment, rows, device, memory)
    return replace(parts, step_events=parts.step_events / processes)


def _fit(
    experiment: Experiment,
    train_rows: EncodedRows,
    valid_rows: EncodedRows,
    device: torch.device,
    writer: RunWriter,
    parts: Parts,
    after_validation: Callable[[int, float], None] | None,
    processes: Processes,
) -> dict[str, Any]:
    """Train, keeping weights and checkpoints with `writer`; the content of metrics.json."""
    config = experiment.training
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = build_model(experiment.model, train_rows.features, experiment.hyperparameters)
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{experiment.expid}: {experiment.model}, {parameters:,} parameters, "
        f"{len(train_rows):,} train and {len(valid_rows):,} validation rows, on "
        + (f"{device}" if processes.alone else f"{processes.world_size} processes ({device.type})")
    )
    say(f"batches of {config.batch_size:,} rows: {parts}")
    if config.verbose == 2:
        say(experiment.model_dump_json(indent=1, serialize_as_any=True))
    order = BatchRows(
        len(train_rows),
        config.batch_size,
        shuffle=config.shuffle,
        seed=config.seed,
        label=train_rows.label,
        negative_sampling=config.negative_sampling,
    )
    group = None if config.group_id is None else valid_rows.groups(config.group_id)
    valid_order = BatchRows(len(valid_rows), config.batch_size, shuffle=False)
    module = CTRModule(model, config, group, processes)
    module.micro_batch_events = parts.micro_batch_events
    execute(model, checkpointing=parts.gradient_checkpointing)
    start = _go_on(writer, module, order, processes)
    progress = RowProgress(order, valid_order)
    rule = MonitorRule(
        config,
        keep=lambda: processes.first(lambda: writer.keep(model.state_dict()), others=_nothing),
        after=after_validation,
    )
    stop = StopSignal()
    checkpoints = Checkpoints(
        writer.checkpoints,
        minutes=config.checkpoint_minutes,
        eval_steps=config.eval_steps,
        stop=stop,
        best=writer.best,
        seed=config.seed,
        processes=processes,
    )
    callbacks = [rule, progress, checkpoints]
    trainer = _trainer(config, device, writer.folder / "logs", callbacks, processes)
    loader = partial(
        batches,
        share=(processes.rank, processes.world_size),
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    )
    with stop.listening():
        trainer.fit(
            module,
            loader(train_rows, order),
            loader(valid_rows, valid_order),
            ckpt_path=start,
        )
    if rule.best_row is None:
        processes.fail_together(
            UserError(
                "no validation gave a usable monitor",
                key="monitor",
                value=dict(config.monitor),
                remedy="look at the validation part: it needs clicks and non-clicks",
            )
        )
    assert rule.best_row is not None
    say(f"best in epoch {rule.best_row['epoch']:.0f}")
    return {
        "best": rule.best_row,
        "history": rule.history,
        "parameters": parameters,
        "trained_rows": progress.trained_rows,
        "rows_per_s": progress.trained_rows / progress.train_seconds,
        "seconds": progress.train_seconds,
        "skipped_batches": module.skipped_batches,
    }


def _check_monitor(config: TrainingConfig, valid_rows: EncodedRows) -> None:
    """Refuse a validation part on which the monitor is not defined, before training on the rest."""
    assert valid_rows.label is not None
    names = tuple(name for name in config.monitor if name in METRICS)
    for name, value in evaluate(valid_rows.label, np.zeros(len(valid_rows)), names).items():
        if math.isnan(value):
            raise UserError(
                f"{name} is not defined on the {len(valid_rows):,} validation rows, which all have "
                f"the same label",
                key="monitor",
                value=float(valid_rows.label[0]),
                remedy="raise valid_split.fraction, or set valid_split.method: stratified",
            )


def _go_on(
    writer: RunWriter, module: CTRModule, order: BatchRows, processes: Processes
) -> Path | None:
    """Set the rows' order and the best weights back to the newest checkpoint, and name it."""
    found = newest(writer.checkpoints) if processes.is_first else None
    name = processes.tell(None if found is None else found[0].name)
    if name is None:
        if processes.is_first:
            writer.forget_best()
        return None
    path = writer.checkpoints / name

    def restore() -> None:
        checkpoint = read_checkpoint(path) if found is None else found[1]
        if _shapes(checkpoint["state_dict"]) != _shapes(module.state_dict()):
            raise UserError(
                "the checkpoint is of another version of the model",
                file=path,
                remedy="give --fresh",
            )
        if processes.is_first:
            if checkpoint["best"]:
                writer.keep(checkpoint["best"])
            else:
                writer.forget_best()
        order.resume(*position(checkpoint))

    processes.everywhere(restore)
    return path


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _trainer(
    config: TrainingConfig,
    device: torch.device,
    logs: Path,
    callbacks: list[pl.Callback],
    processes: Processes,
) -> pl.Trainer:
    _quieten_lightning()
    # A CSV logger begins its file anew, so a run that goes on gets another beside it.
    number = len(list(logs.glob("csv*")))
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        strategy="auto" if processes.alone else JointStrategy(processes),
        use_distributed_sampler=False,  # `batches` shares rows out
        precision=PRECISIONS[config.precision],
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
        plugins=[SafeCheckpointIO()],
        log_every_n_steps=LOG_EVERY_STEPS,
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # MonitorRule keeps the best weights, Checkpoints the rest
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _identity(data: Prepared) -> dict[str, Any]:
    """Which rows these are: their number, and the hash of the manifest that holds their hashes."""
    described: dict[str, Any] = {}
    for part, rows in (("train", data.train), ("valid", data.valid)):
        manifest = data.folder / part / "manifest.json"
        described[part] = [len(rows), sha256_of(manifest) if manifest.is_file() else None]
    return described


def _peak_mb(device: torch.device) -> float:
    """Largest memory of this process so far, in MB: the GPU's where one is used."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _quieten_lightning() -> None:
    """Drop Lightning's banners and its advice that does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*log_every_n_steps.*",
        ".*is not available.*",
        ".*your dataloader is not resumable.*",  # BatchRows is
        ".*sync_dist=True.*",  # metrics are of all rows already
        ".*LeafSpec.* is deprecated.*",  # in Lightning's own code
    ):
        warnings.filterwarnings("ignore", message=text)
