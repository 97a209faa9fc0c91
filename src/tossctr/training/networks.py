"""The family of networks: PyTorch modules from `Batch` to logits, trained by Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.config.schema import Experiment, ModelConfig
from tossctr.data.features import FeatureMap
from tossctr.data.loader import RowsDataset
from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.models import MODELS
from tossctr.models.base import CTRModel
from tossctr.models.bounded import TooLarge, build_within
from tossctr.models.explain import explain
from tossctr.models.feseq import FESeq
from tossctr.models.layers.norm import has_batch_norm
from tossctr.training.checks import check_network, check_size
from tossctr.training.device import default_micro_batch_events, keep_freed_memory
from tossctr.training.family import AttentionByAge, Family, Fit, TrainedModel
from tossctr.training.folder import AGAIN, WEIGHTS, FinishedFolder, TrainingFolder

if TYPE_CHECKING:
    from tossctr.data.prepare import Prepared
    from tossctr.training.micro_batches import MicroBatches
    from tossctr.training.plan import MemoryPlan

_SPARE_BYTES = 1 << 30  # for tensors other than weights, such as tables of sines


class Network(TrainedModel):
    """A trained network.

    Args:
        module: with its weights.
        micro_batch_events: events to predict at once; None takes what suits the device.
    """

    def __init__(self, module: CTRModel, micro_batch_events: int | None) -> None:
        self.module = module
        self._micro_batch_events = micro_batch_events

    @torch.inference_mode()
    def logits(
        self, rows: EncodedRows, *, device: torch.device, batch_rows: int
    ) -> NDArray[np.float64]:
        """As `training.family.TrainedModel.logits`."""
        if device.type == "cpu":
            keep_freed_memory()
        module = self.module.to(device).eval()
        limit = self._micro_batch_events or default_micro_batch_events(device)
        dataset = RowsDataset(rows)
        logits = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), batch_rows):
            batch = dataset[np.arange(start, min(start + batch_rows, len(rows)))]
            for micro in batch.split(limit):
                logits[micro.positions.numpy()] = module(micro.to(device)).double().cpu().numpy()
        return logits

    def attention(self, rows: EncodedRows, device: torch.device) -> AttentionByAge | None:
        """As `training.family.TrainedModel.attention`, of FESeq with Transformer blocks."""
        if not isinstance(self.module, FESeq):
            return None
        batch = RowsDataset(rows)[np.arange(len(rows))]
        size = int(rows.event_counts().max())  # ages 0 (the target) to that of the oldest event
        weight, uniform, events = (np.zeros(size) for _ in range(3))
        for part in batch.split(default_micro_batch_events(device)):
            found = explain(self.module.to(device), part.to(device))
            if not found.attention:
                return None
            mean = torch.stack([block.mean(dim=1) for block in found.attention]).mean(dim=0)
            age, row = found.events.age.cpu().numpy(), found.events.row.cpu().numpy()
            weight += np.bincount(age, mean.double().cpu().numpy(), size)
            uniform += np.bincount(age, 1 / np.bincount(row)[row], size)
            events += np.bincount(age, minlength=size)
        return AttentionByAge(weight, uniform, events)


class Networks(Family):
    """All of `models.MODELS`. Lightning is imported for training, not for prediction."""

    epoch_unit: ClassVar[str] = "epoch"
    step_unit: ClassVar[str] = "optimiser step"
    advice_if_first_was_best: ClassVar[str] = (
        "Try a smaller `learning_rate`, or validations within an epoch (`eval_steps`)."
    )

    def advice_if_last_was_best(
        self, experiment: Experiment, history: Sequence[Mapping[str, float]]
    ) -> str:
        return f"Try more `epochs`, now {experiment.training.epochs}."

    @property
    def models(self) -> Mapping[str, type[ModelConfig]]:
        return {name: model.Config for name, model in MODELS.items()}

    def check(self, experiment: Experiment, features: FeatureMap, processes: int) -> None:
        check_network(experiment, features, processes)

    def fit(
        self,
        experiment: Experiment,
        train_rows: EncodedRows,
        valid_rows: EncodedRows,
        folder: TrainingFolder,
        how: Fit,
    ) -> dict[str, Any]:
        from tossctr.training.fit import fit_network

        micro_batches = how.processes.everywhere(
            lambda: _micro_batches(experiment, train_rows, how)
        )
        return fit_network(experiment, train_rows, valid_rows, folder, how, micro_batches)

    def load(self, experiment: Experiment, features: FeatureMap, folder: FinishedFolder) -> Network:
        limit = _SPARE_BYTES + 4 * folder.weights_bytes
        try:
            module = build_within(experiment.model, features, experiment.hyperparameters, limit)
        except UserError as error:
            raise UserError(
                f"does not fit the features: {error.line()}", file=folder.folder, remedy=AGAIN
            ) from error
        except (TooLarge, RuntimeError, OverflowError) as error:
            raise UserError(
                "the weights do not fit the config, whose model is larger",
                file=folder.folder / WEIGHTS,
                remedy=AGAIN,
            ) from error
        module.load_state_dict(folder.tensors(module.state_dict()), strict=True)
        return Network(module.eval(), experiment.training.micro_batch_events)

    def plan(
        self, experiment: Experiment, data: Prepared, device: torch.device, memory: float | None
    ) -> MemoryPlan:
        from tossctr.training.plan import plan_memory

        return plan_memory(experiment, data, device, memory)


def _micro_batches(experiment: Experiment, rows: EncodedRows, how: Fit) -> MicroBatches:
    """The micro-batches of a process's share of a batch."""
    from tossctr.training.micro_batches import MicroBatches, fit_micro_batches

    if how.memory is None and how.device.type == "cpu":
        whole = has_batch_norm(check_size(experiment, rows.features))
        found = MicroBatches.from_config(experiment.training, rows, how.device, whole=whole)
    else:
        found = fit_micro_batches(experiment, rows, how.device, how.memory)
    return replace(found, events_per_step=found.events_per_step / how.processes.world_size)
