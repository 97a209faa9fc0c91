"""The interface of model families and of their trained models.

A family is a group of models with the same training code: networks (`training.networks`) or
LightGBM (`trees.family`). It is one entry of `families.registry`; only its own folder names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from tossctr.cluster.processes import Processes
    from tossctr.config.schema import Experiment, ModelConfig
    from tossctr.data.features import FeatureMap
    from tossctr.data.prepare import Prepared
    from tossctr.data.rows import EncodedRows
    from tossctr.training.folder import FinishedFolder, TrainingFolder
    from tossctr.training.plan import MemoryPlan


@dataclass(frozen=True)
class AttentionByAge:
    """Attention of targets to their histories, summed over rows by the events' age.

    Attributes:
        weight: (A,) sums of attention weights, averaged over blocks and heads; age 0 is the target.
        uniform: (A,) the same if attention were uniform.
        events: (A,) numbers of events of that age.
    """

    weight: NDArray[np.float64]
    uniform: NDArray[np.float64]
    events: NDArray[np.float64]


class TrainedModel(ABC):
    """Predicts rows encoded by the run's encoder."""

    @abstractmethod
    def logits(
        self, rows: EncodedRows, *, device: torch.device, batch_rows: int
    ) -> NDArray[np.float64]:
        """(N,) log odds of a click, in the rows' order, `batch_rows` rows at a time."""

    def attention(self, rows: EncodedRows, device: torch.device) -> AttentionByAge | None:
        """What the report shows of attention; None for a model without."""
        return None


@dataclass(frozen=True)
class Fit:
    """Device, memory and processes of a training.

    Attributes:
        device: where to train.
        memory: bytes that training may use; None for the free memory.
        after_validation: called after each validation with its number, from 0, and the monitor; an
            exception that it raises ends the training.
        processes: those that train together.
    """

    device: torch.device
    memory: float | None
    after_validation: Callable[[int, float], None] | None
    processes: Processes


class Family(ABC):
    """A way of training.

    Attributes:
        files: names of the files that `fit` writes into a run's folder in addition to the weights.
        uses_missing: whether its models tell a missing number from the value that fills it, so
            that rows whose missing numbers have been filled cannot be predicted.
        epoch_unit, step_unit: what `epoch` and `step` of a validation count.
        advice_if_first_was_best: for a run whose first validation was the best.
    """

    files: ClassVar[tuple[str, ...]] = ()
    uses_missing: ClassVar[bool] = False
    epoch_unit: ClassVar[str]
    step_unit: ClassVar[str]
    advice_if_first_was_best: ClassVar[str]

    @abstractmethod
    def advice_if_last_was_best(
        self, experiment: Experiment, history: Sequence[Mapping[str, float]]
    ) -> str:
        """Advice on how to train longer."""

    @property
    @abstractmethod
    def models(self) -> Mapping[str, type[ModelConfig]]:
        """The config class of each of its models by the name that `model:` has in the YAML. Its
        `without_effect` names the training keys that do not apply."""

    @abstractmethod
    def check(self, experiment: Experiment, features: FeatureMap, processes: int) -> None:
        """Refuse, before data are prepared, an experiment that cannot be trained.

        Args:
            experiment: the experiment to train.
            features: its fields; the sizes of vocabularies are not known yet.
            processes: how many train together.

        Raises:
            UserError: options that do not fit the fields, each other or this machine's memory.
        """

    @abstractmethod
    def fit(
        self,
        experiment: Experiment,
        train_rows: EncodedRows,
        valid_rows: EncodedRows,
        folder: TrainingFolder,
        how: Fit,
    ) -> dict[str, Any]:
        """Train, and keep the best weights and `files` in the folder.

        Args:
            experiment: what to train.
            train_rows, valid_rows: with the lengths chosen for training.
            folder: of the run; an interrupted training in it is resumed if the family can.
            how: device, memory, processes.

        Returns:
            The content of metrics.json (`runs.marker.TrainingMetrics`).

        Raises:
            UserError: a loss or monitor that is not finite.
            Stopped: a signal asked for it.
            PeerLost: another of the processes has ended.
        """

    @abstractmethod
    def load(
        self, experiment: Experiment, features: FeatureMap, folder: FinishedFolder
    ) -> TrainedModel:
        """The trained model of a finished run.

        Raises:
            UserError: a file that has changed, or does not fit the config.
        """

    @abstractmethod
    def plan(
        self, experiment: Experiment, data: Prepared, device: torch.device, memory: float | None
    ) -> MemoryPlan:
        """Memory and time of a training.

        Raises:
            UserError: no micro-batches fit into `memory`, or the family has none.
        """
