"""What one optimiser step and one validation do; the loop itself is Lightning's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tossctr.config.schema import TrainingConfig
from tossctr.data.batch import Batch
from tossctr.errors import UserError
from tossctr.evaluation.metrics import METRICS, evaluate
from tossctr.models.base import CTRModel
from tossctr.training.regularization import Penalty

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}


class CTRModule(pl.LightningModule):
    """Trains a `CTRModel` on mean binary cross entropy plus the two regularisers.

    A batch is executed in parts of at most `micro_batch_events` events, whose gradients add up to
    those of the whole: memory is bounded by events, the effective batch stays `batch_size` rows.

    Raises:
        UserError: a loss that is not finite, naming the batch's rows.
    """

    def __init__(self, model: CTRModel, config: TrainingConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.config = config
        self.metric_names = tuple(dict.fromkeys([*METRICS, *config.metrics, *config.monitor]))
        self._embedding_penalty = Penalty.parse(
            config.embedding_regularizer, "embedding_regularizer"
        )
        self._net_penalty = Penalty.parse(config.net_regularizer, "net_regularizer")
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        name = self.config.optimizer
        # One fused kernel over all parameters where torch has one (not for RMSprop).
        fused: dict[str, Any] = {} if name == "rmsprop" else {"fused": True}
        return OPTIMIZERS[name](
            self.model.parameters(),
            lr=self.config.learning_rate,
            **fused,
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> list[Batch]:
        # Here the batch is still on the CPU, where its lengths cost nothing to look at.
        return batch.split(self.config.micro_batch_events)

    def training_step(self, parts: list[Batch], batch_idx: int) -> Tensor:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        rows = sum(len(part) for part in parts)
        total = torch.zeros((), device=self.device)
        for part in parts:
            loss = binary_cross_entropy_with_logits(self.model(part), _label(part), reduction="sum")
            self.manual_backward(loss / rows)
            total += loss.detach()
        mean = total / rows
        if not torch.isfinite(mean):
            numbers = [int(part.row[0]) for part in parts if part.row is not None]
            raise UserError(
                "the training loss is not finite",
                value=float(mean),
                remedy=f"lower learning_rate, or look at the batch's rows: {numbers[:5]}, ...",
            )
        self._embedding_penalty.add_gradient(self.model.embedding_parameters())
        self._net_penalty.add_gradient(self.model.other_parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        optimizer.step()
        self.log("train_loss", mean, on_step=True, on_epoch=False, batch_size=rows)
        return mean

    def validation_step(self, parts: list[Batch], batch_idx: int) -> None:
        for part in parts:
            self._logits.append(self.model(part).float().cpu())
            self._labels.append(_label(part).cpu())

    def on_validation_epoch_end(self) -> None:
        label, logit = torch.cat(self._labels).numpy(), torch.cat(self._logits).numpy()
        self._labels, self._logits = [], []
        values: dict[str, Any] = evaluate(label, logit, self.metric_names)
        self.log_dict({name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()})


def _label(batch: Batch) -> Tensor:
    assert batch.label is not None, "training needs labelled rows"
    return batch.label
