"""`train`: an experiment and prepared data become a run's folder."""

from __future__ import annotations

import logging
import resource
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from tossctr.config.schema import Experiment
from tossctr.data.encoding.columns import resolve
from tossctr.data.features import FeatureMap
from tossctr.data.loader import BatchRows, batches
from tossctr.data.prepare import Prepared
from tossctr.errors import UserError
from tossctr.models import build_model
from tossctr.progress import say
from tossctr.training.callbacks import MonitorRule, RowProgress
from tossctr.training.module import CTRModule
from tossctr.training.run_folder import Run, RunWriter, load_run

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
    dataset = experiment.dataset
    # Vocabularies are not known yet, and no option depends on their sizes.
    fields = tuple(c.field(3 if c.has_vocabulary else None) for c in resolve(dataset))
    features = FeatureMap(
        dataset_id=dataset.dataset_id, label=dataset.label_col.name, fields=fields
    ).with_lengths(dataset, experiment.training.max_len)
    with torch.device("meta"):
        build_model(experiment.model, features, experiment.hyperparameters)


def train(experiment: Experiment, data: Prepared, device: torch.device, folder: Path) -> Run:
    """Train to the end of patience or epochs and keep the best weights.

    Args:
        experiment: what to train and how.
        data: the prepared stores of its data set.
        device: where to train.
        folder: where the run goes; an earlier run there is replaced once this one is whole.

    Returns:
        The run, loaded back from its folder with the best weights.

    Raises:
        UserError: settings that do not fit the data, a loss or monitor that is not finite.
    """
    config = experiment.training
    pl.seed_everything(config.seed, workers=True, verbose=False)
    features = data.encoder.features.with_lengths(experiment.dataset, config.max_len)
    train_rows = replace(data.train, features=features)
    valid_rows = replace(data.valid, features=features)
    model = build_model(experiment.model, features, experiment.hyperparameters)
    parameters = sum(p.numel() for p in model.parameters())
    say(
        f"{experiment.expid}: {experiment.model}, {parameters:,} parameters, "
        f"{len(train_rows):,} train and {len(valid_rows):,} validation rows, on {device}"
    )

    writer = RunWriter(folder, experiment, data.encoder, features)
    order = BatchRows(
        len(train_rows),
        config.batch_size,
        shuffle=config.shuffle,
        seed=config.seed,
        label=train_rows.label,
        negative_sampling=config.negative_sampling,
    )
    progress = RowProgress(order.rows_per_epoch, len(valid_rows))
    rule = MonitorRule(config, keep=lambda: writer.keep(model))
    logs = writer.folder / "logs"
    _quieten_lightning()
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        precision=PRECISIONS[config.precision],
        max_epochs=config.epochs,
        val_check_interval=config.eval_steps,
        check_val_every_n_epoch=None if config.eval_steps else 1,
        logger=[
            TensorBoardLogger(logs, name="", version="tensorboard"),
            CSVLogger(logs, name="", version="csv"),
        ],
        callbacks=[rule, progress],
        log_every_n_steps=LOG_EVERY_STEPS,
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # MonitorRule keeps the best weights, as safetensors
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = partial(batches, num_workers=config.num_workers, pin_memory=device.type == "cuda")
    trainer.fit(
        CTRModule(model, config),
        loader(train_rows, order),
        loader(valid_rows, BatchRows(len(valid_rows), config.batch_size, shuffle=False)),
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    if rule.best_row is None:
        raise UserError(
            "no validation gave a usable monitor",
            column="monitor",
            value=dict(config.monitor),
            remedy="look at the validation part: it needs clicks and non-clicks",
        )
    best = rule.best_row
    seconds, trained_rows = progress.train_seconds, progress.trained_rows
    writer.finish(
        {
            "best": best,
            "history": rule.history,
            "parameters": parameters,
            "rows_per_s": trained_rows / seconds,
            "seconds": seconds,
            "peak_mb": _peak_mb(device),
        }
    )
    say(f"best in epoch {best['epoch']:.0f}; run kept in {folder}")
    return load_run(folder)


def _peak_mb(device: torch.device) -> float:
    """Largest memory of this process so far, in MB: the GPU's where one is used."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _quieten_lightning() -> None:
    """Drop Lightning's banners and its advice that does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (".*does not have many workers.*", ".*log_every_n_steps.*", ".*is not available.*"):
        warnings.filterwarnings("ignore", message=text)
