"""The optimizer step and the validation, as a Lightning module."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

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
from tossctr.training.generators import generator_states, set_generators
from tossctr.training.joint import sum_gradients
from tossctr.training.losses import Loss
from tossctr.training.optimizer import new_optimizer
from tossctr.training.regularization import Penalty


class CTRModule(pl.LightningModule):
    """Trains a `CTRModel` on the configured loss, a mean over rows, plus the two regularizers.

    A batch is executed in micro-batches of at most `micro_batch_events` events, whose gradients are
    accumulated: memory is bounded by events, and the effective batch is still `batch_size` rows. If
    a micro-batch does not fit the device, the step is repeated with half as many events, which then
    stays the size.

    With negative sampling at rate r, a row's odds among the sampled rows are 1 / r times its odds
    among all rows, so the loss is computed at logit - log(r), and the model's output is calibrated
    to all rows (the exact correction of King and Zeng, Political Analysis 2001, section 3).

    With several processes, each computes the gradients of its share of a batch. They are summed in
    one all-reduce per step, so that all take the step that one process would take with the whole
    batch. Validation logits are gathered, and metrics are over all rows.

    Args:
        valid_group: (N,) the group of each validation row, if a metric needs it.
        processes: those that train together.

    Attributes:
        metrics: of the last validation, in float64.
        micro_batch_events: as configured, or as `fit_network` sets it; halved when memory runs out.
        skipped_batches: the number of batches skipped because of a loss or gradient that was not
            finite.

    Raises:
        UserError: a loss or gradient is not finite (unless such batches are skipped), naming rows;
            or a single row does not fit the device.
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
        # Before the transfer, because reading lengths on a GPU would synchronise.
        return batch.split(self.micro_batch_events)

    def training_step(self, micro_batches: list[Batch], batch_idx: int) -> Tensor:
        optimizer = cast(LightningOptimizer, self.optimizers())
        statistics = [buffer.clone() for buffer in self._statistics]
        losses, failure = None, None
        try:
            losses = self._backward(micro_batches, optimizer)
            while losses is None:
                micro_batches = self._halved(micro_batches)
                losses = self._backward(micro_batches, optimizer)
        except UserError as error:
            if self._processes.alone:
                raise
            failure = error  # raised in `_mean`, when no process waits for gradients any more
        mean, rows = self._mean(micro_batches, losses or [], failure)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # fp16 only
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)  # see `ManualUnscaling`
        self._embedding_penalty.add_gradient(self.model.embedding_parameters())
        self._net_penalty.add_gradient(self.model.other_parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        # A scaler skips a step with infinite gradients and lowers its scale.
        if not torch.isfinite(mean if scaler is not None else mean + norm):
            self._refuse(_not_finite(micro_batches, losses or [], mean, self._processes))
            for buffer, before in zip(self._statistics, statistics, strict=True):
                buffer.copy_(before)  # or NaN would stay in the running statistics
            if scaler is None:
                return mean
        optimizer.step()
        self.log("train_loss", mean, on_step=True, on_epoch=False, batch_size=rows)
        return mean

    def _backward(
        self, micro_batches: list[Batch], optimizer: LightningOptimizer
    ) -> list[Tensor] | None:
        """Compute gradients of the mean loss; its share by micro-batch, None if memory ran out."""
        optimizer.zero_grad()
        # Other processes have the rest of the batch; `_mean` corrects for a short one.
        rows = _rows(micro_batches) if self._processes.alone else self.config.batch_size
        losses = []
        try:
            pairs = (
                self._pairs(micro_batches) if self._loss.pairs and len(micro_batches) > 1 else None
            )
            for n, batch in enumerate(micro_batches):
                if pairs is not None:
                    set_generators(pairs.generators[n])
                logit = self.model(batch).float()
                loss = self._loss.row_loss(logit, batch.labels) / rows
                if pairs is not None:
                    # The gradient of the pairs of the whole batch, and a share of their value.
                    own = (logit * pairs.gradients[n]).sum()
                    loss = loss + own - own.detach() + pairs.value * len(batch) / rows
                elif self._loss.pairs:
                    loss = loss + self._loss.pair_loss(logit, batch.labels)
                self.manual_backward(loss)
                losses.append(loss.detach())
        except torch.OutOfMemoryError:
            return None  # the caller repeats the step, when this frame's tensors are freed
        return losses

    def _mean(
        self, micro_batches: list[Batch], losses: list[Tensor], failure: UserError | None
    ) -> tuple[Tensor, int]:
        """The mean loss of the whole batch and its number of rows; scales the gradients."""
        own = torch.stack(losses).sum() if losses else torch.zeros((), device=self.device)
        if self._processes.alone:
            return own, _rows(micro_batches)
        numbers = (own, _rows(micro_batches), failure is not None)
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

    def _pairs(self, micro_batches: list[Batch]) -> _Pairs:
        """Compute all logits before any gradient, because pairs span micro-batches; the second pass
        repeats the dropout of this one."""
        generators, logits = [], []
        with torch.no_grad():
            for batch in micro_batches:
                generators.append(generator_states())
                logits.append(self.model(batch).float())
        label = torch.cat([batch.labels for batch in micro_batches])
        value, gradient = self._loss.pair_gradient(torch.cat(logits), label)
        return _Pairs(
            generators,
            value,
            torch.split(gradient, [len(batch) for batch in micro_batches]),
        )

    def _halved(self, micro_batches: list[Batch]) -> list[Batch]:
        if has_batch_norm(self.model):
            raise Untrainable(
                "a batch does not fit the device's memory, and batch normalisation cannot split it",
                remedy="lower batch_size, max_len or embedding_dim, or use --gpu -1",
            )
        if all(len(batch) == 1 for batch in micro_batches):
            raise Untrainable(
                "not even one row fits the device's memory",
                remedy="lower max_len or embedding_dim, or use --gpu -1",
            )
        self.micro_batch_events = max(self.micro_batch_events // 2, 1)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"out of memory: reduced micro_batch_events to {self.micro_batch_events:,}")
        return [half for large in micro_batches for half in large.split(self.micro_batch_events)]

    def _refuse(self, error: UserError) -> None:
        """Stop, or skip the batch."""
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

    def validation_step(self, micro_batches: list[Batch], batch_idx: int) -> None:
        for batch in micro_batches:
            self._logits.append(self.model(batch).float().cpu())
            self._labels.append(batch.labels.cpu())
            self._rows.append(batch.positions.cpu())

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
            order = row.argsort()  # so that sums do not depend on how rows were distributed
            group = None if self._valid_group is None else self._valid_group[row[order].numpy()]
            missing = int(logit.isnan().sum())
            if missing:  # NaN never improves the monitor
                say(f"the predictions of {missing:,} validation rows are NaN")
                metrics = dict.fromkeys(self._metric_names, float("nan"))
            else:
                metrics = evaluate(
                    label[order].numpy(), logit[order].numpy(), self._metric_names, group=group
                )
        self.metrics = self._processes.broadcast(metrics)
        self.log_dict(self.metrics)


def _rows(micro_batches: list[Batch]) -> int:
    return sum(len(batch) for batch in micro_batches)


def _not_finite(
    micro_batches: list[Batch], losses: list[Tensor], mean: Tensor, processes: Processes
) -> UserError:
    bad = [
        batch for batch, loss in zip(micro_batches, losses, strict=True) if not torch.isfinite(loss)
    ]
    own = [
        [int(row) for batch in group for row in batch.positions] for group in (bad, micro_batches)
    ]
    known, all_ = (
        [row for rows in of_processes for row in rows]
        for of_processes in zip(*processes.all_gather(own), strict=True)
    )
    rows = sorted(known or all_)
    what = "loss" if known else "gradient"
    return Untrainable(
        f"the training {what} is not finite",
        value=float(mean),
        remedy=f"lower learning_rate, or inspect {len(rows)} training rows: {rows[:8]}",
    )


class _Pairs(NamedTuple):
    """For each micro-batch, the random state before it and its gradient (B,) of the pairwise loss.

    `value` is the loss of the whole batch.
    """

    generators: list[dict[str, Tensor]]
    value: Tensor
    gradients: tuple[Tensor, ...]
