"""What one optimiser step and one validation do; the loop itself is Lightning's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from numpy.typing import NDArray
from torch import Tensor, nn

from tossctr.cluster.processes import ALONE, Processes
from tossctr.config.schema import TrainingConfig
from tossctr.data.batch import Batch
from tossctr.errors import Untrainable, UserError
from tossctr.metrics.registry import evaluate, reported
from tossctr.models.base import CTRModel
from tossctr.models.layers.norm import has_batch_norm
from tossctr.progress import say
from tossctr.training.device import CPU_MICRO_BATCH
from tossctr.training.joint import sum_gradients
from tossctr.training.losses import Loss
from tossctr.training.regularization import Penalty

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


def new_optimizer(model: CTRModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimiser, one fused kernel over all parameters where torch has one."""
    options: dict[str, Any] = {} if config.optimizer == "rmsprop" else {"fused": True}
    if config.optimizer == "adamw":
        options["weight_decay"] = 0.01 if config.weight_decay is None else config.weight_decay
    kind = OPTIMIZERS[config.optimizer]
    return kind(model.parameters(), lr=config.learning_rate, **options)


class CTRModule(pl.LightningModule):
    """Trains a `CTRModel` on the configured loss, a mean over rows, plus the two regularisers.

    A batch is executed in parts of at most `micro_batch_events` events, whose gradients add up to
    those of the whole: memory is bounded by events, the effective batch stays `batch_size` rows.
    Where a part does not fit the device all the same, the step is begun again with parts half as
    large, and training goes on with those.

    With negative sampling at rate r, a row's odds among the sampled rows are 1 / r times its odds
    among all rows, so the loss is taken at logit - log(r): the model's own output stays calibrated
    to all rows (the exact correction of King and Zeng, Political Analysis 2001, section 3).

    Several processes each take their share of a batch. Its gradients add up in the same way, in one
    exchange a step, so that all take the step that one process would take with the whole batch; a
    validation's logits are gathered, and its metrics those of all rows.

    Args:
        valid_group: (N,) the group of each validation row, where a metric needs it.
        processes: those that train together.

    Attributes:
        metrics: of the last validation, in float64.
        micro_batch_events: as configured or as `train` sets it, until something did not fit.
        skipped_batches: those whose loss or gradient was not finite, where these are skipped.

    Raises:
        UserError: a loss or gradient that is not finite (unless such batches are skipped), naming
            rows; a row that does not fit the device by itself.
    """

    def __init__(
        self,
        model: CTRModel,
        config: TrainingConfig,
        valid_group: NDArray[Any] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.config = config
        self.metrics: dict[str, float] = {}
        self.micro_batch_events = config.micro_batch_events or CPU_MICRO_BATCH
        self.skipped_batches = 0
        self._metric_names = reported(config.metrics, config.monitor)
        self._statistics = list(model.buffers()) if has_batch_norm(model) else []
        self._loss = Loss(config)
        self._embedding_penalty = Penalty.parse(
            config.embedding_regularizer, "embedding_regularizer"
        )
        self._net_penalty = Penalty.parse(config.net_regularizer, "net_regularizer")
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._valid_group = valid_group
        self._processes = processes

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return new_optimizer(self.model, self.config)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> list[Batch]:
        # Here the batch is still on the CPU, where its lengths cost nothing to look at.
        return batch.split(self.micro_batch_events)

    def training_step(self, parts: list[Batch], batch_idx: int) -> Tensor:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        statistics = [buffer.clone() for buffer in self._statistics]
        losses, failure = None, None
        try:
            losses = self._backward(parts, optimizer)
            while losses is None:
                parts = self._halved(parts)
                losses = self._backward(parts, optimizer)
        except UserError as error:
            if self._processes.alone:
                raise
            failure = error  # told once the others are not waiting for gradients
        mean, rows = self._mean(parts, losses or [], failure)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # fp16 only
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)  # here once, see `ScaledHere`
        self._embedding_penalty.add_gradient(self.model.embedding_parameters())
        self._net_penalty.add_gradient(self.model.other_parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        # A scaler skips a step with infinite gradients by itself, and lowers its scale.
        if not torch.isfinite(mean if scaler is not None else mean + norm):
            self._refuse(_not_finite(parts, losses or [], mean, self._processes))
            for buffer, before in zip(self._statistics, statistics, strict=True):
                buffer.copy_(before)  # one NaN in a running mean would stay there
            if scaler is None:
                return mean
        optimizer.step()
        self.log("train_loss", mean, on_step=True, on_epoch=False, batch_size=rows)
        return mean

    def _backward(self, parts: list[Batch], optimizer: LightningOptimizer) -> list[Tensor] | None:
        """Gradients of the mean loss, and each part's share of it; None if memory ran out."""
        optimizer.zero_grad()
        # Of the whole batch, which only together they know: `_mean` sets a short one right.
        rows = _rows(parts) if self._processes.alone else self.config.batch_size
        losses = []
        try:
            pairs = self._pairs(parts) if self._loss.pairs and len(parts) > 1 else None
            for n, part in enumerate(parts):
                if pairs is not None:
                    _set_generators(pairs.generators[n], self.device)
                logit = self.model(part).float()
                loss = self._loss.row_loss(logit, part.labels) / rows
                if pairs is not None:
                    # Its gradient is that of the whole batch's pairs, its value the part's share.
                    own = (logit * pairs.gradients[n]).sum()
                    loss = loss + own - own.detach() + pairs.value * len(part) / rows
                elif self._loss.pairs:
                    loss = loss + self._loss.pair_loss(logit, part.labels)
                self.manual_backward(loss)
                losses.append(loss.detach())
        except torch.OutOfMemoryError:
            return None  # handled by the caller, when this frame's tensors are gone
        return losses

    def _mean(
        self, parts: list[Batch], losses: list[Tensor], failure: UserError | None
    ) -> tuple[Tensor, int]:
        """() the mean loss of the whole batch, and its rows; gradients become those of the mean."""
        own = torch.stack(losses).sum() if losses else torch.zeros((), device=self.device)
        if self._processes.alone:
            return own, _rows(parts)
        numbers = (own, _rows(parts), failure is not None)
        mean, rows, failures = sum_gradients(self.model, numbers, self._processes)
        if failures:
            self._processes.fail_together(failure)
        if rows < self.config.batch_size:
            scale = self.config.batch_size / rows
            mean = mean * scale
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return mean, int(rows)

    def _pairs(self, parts: list[Batch]) -> _Pairs:
        """Pairs span the parts, so all logits are computed once before any gradient; dropout then
        falls as it fell here."""
        generators, logits = [], []
        with torch.no_grad():
            for part in parts:
                generators.append(_generators(self.device))
                logits.append(self.model(part).float())
        label = torch.cat([part.labels for part in parts])
        value, gradient = self._loss.pair_gradient(torch.cat(logits), label)
        return _Pairs(generators, value, torch.split(gradient, [len(part) for part in parts]))

    def _halved(self, parts: list[Batch]) -> list[Batch]:
        if has_batch_norm(self.model):
            raise Untrainable(
                "a batch does not fit the device's memory, and batch normalisation needs it whole",
                remedy="lower batch_size, max_len or embedding_dim, or use --gpu -1",
            )
        if all(len(part) == 1 for part in parts):
            raise Untrainable(
                "not even one row fits the device's memory",
                remedy="lower max_len or embedding_dim, or use --gpu -1",
            )
        self.micro_batch_events = max(self.micro_batch_events // 2, 1)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"out of memory: going on with micro_batch_events {self.micro_batch_events:,}")
        return [small for part in parts for small in part.split(self.micro_batch_events)]

    def _refuse(self, error: UserError) -> None:
        """Stop, or go on without the batch."""
        if self.config.on_nonfinite == "stop":
            self._processes.fail_together(error)
        self.skipped_batches += 1
        say(f"batch skipped ({self.skipped_batches} so far): {error.line()}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["module"] = {
            "micro_batch_events": self.micro_batch_events,
            "skipped_batches": self.skipped_batches,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.micro_batch_events = checkpoint["module"]["micro_batch_events"]
        self.skipped_batches = checkpoint["module"]["skipped_batches"]

    def validation_step(self, parts: list[Batch], batch_idx: int) -> None:
        for part in parts:
            self._logits.append(self.model(part).float().cpu())
            self._labels.append(part.labels.cpu())
            self._rows.append(part.positions.cpu())

    def on_validation_epoch_end(self) -> None:
        label, logit, row = (
            self._processes.gather(torch.cat([torch.empty(0, dtype=kind), *found]))
            for kind, found in (
                (torch.float32, self._labels),
                (torch.float32, self._logits),
                (torch.int64, self._rows),
            )
        )
        self._labels, self._logits, self._rows = [], [], []
        metrics: dict[str, float] = {}
        if label is not None and logit is not None and row is not None:  # the first process
            order = row.argsort()  # sums do not depend on who had which rows
            group = None if self._valid_group is None else self._valid_group[row[order].numpy()]
            missing = int(logit.isnan().sum())
            if missing:  # no gain, so that the weights kept before stay and patience goes on
                say(f"the predictions of {missing:,} validation rows are NaN")
                metrics = dict.fromkeys(self._metric_names, float("nan"))
            else:
                metrics = evaluate(
                    label[order].numpy(), logit[order].numpy(), self._metric_names, group=group
                )
        self.metrics = self._processes.broadcast(metrics)
        self.log_dict(self.metrics)


def _rows(parts: list[Batch]) -> int:
    return sum(len(part) for part in parts)


def _not_finite(
    parts: list[Batch], losses: list[Tensor], mean: Tensor, processes: Processes
) -> UserError:
    bad = [part for part, loss in zip(parts, losses, strict=True) if not torch.isfinite(loss)]
    own = [[int(row) for part in some for row in part.positions] for some in (bad, parts)]
    known, all_ = (
        [row for rows in of_processes for row in rows]
        for of_processes in zip(*processes.all_gather(own), strict=True)
    )
    rows = sorted(known or all_)
    what = "loss" if known else "gradient"
    return Untrainable(
        f"the training {what} is not finite",
        value=float(mean),
        remedy=f"lower learning_rate, or look at {len(rows)} train rows: {rows[:8]}",
    )


class _Pairs(NamedTuple):
    """Of each part: the random state before it and the gradient (B,) of the pairs' term."""

    generators: list[tuple[Tensor, Tensor | None]]
    value: Tensor
    gradients: tuple[Tensor, ...]


def _generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_gpu


def _set_generators(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
