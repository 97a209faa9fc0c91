"""A batch shared by several processes: Lightning's part of it, and the sum of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from tossctr.cluster.processes import Processes


class JointStrategy(DDPStrategy):
    """Lightning's strategy for several processes, without its wrapper around the model.

    The wrapper averages gradients over processes at every backward pass; here passes are as many as
    a process needs for its share, and what is summed is what makes the mean over rows:
    `sum_gradients`, once a step.
    """

    def __init__(self, processes: Processes, **options: Any) -> None:
        super().__init__(cluster_environment=_Joined(processes), **options)
        self.processes = processes

    @property
    def root_device(self) -> torch.device:
        assert self.parallel_devices is not None
        return self.parallel_devices[0]  # the one that this process was given, not its number's

    def _configure_launcher(self) -> None:
        pass  # the processes are there

    def configure_ddp(self) -> None:
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            if not self.processes.is_first:
                tensor.data.zero_()
            self.processes.sum_(tensor.data)  # all begin with the first one's

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        self.processes.first(
            lambda: self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)
        )


class _Joined(ClusterEnvironment):
    """The processes in Lightning's words; the group that it would set up is there already."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    creates_processes_externally = True
    main_address = ""
    main_port = 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.processes.world_size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.processes.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.processes.local_rank

    def node_rank(self) -> int:
        return 0


def sum_gradients(
    model: nn.Module, numbers: Sequence[Tensor | float], processes: Processes
) -> Tensor:
    """Replace each gradient by its sum over processes, in one exchange.

    A process without gradients (no rows) takes part with zeros. A parameter that had none in any
    process has none afterwards, as if one process had seen all rows.

    Args:
        model: whose gradients.
        numbers: (n,) summed along.

    Returns:
        (n,) the sums.
    """
    parameters = list(model.parameters())
    device = parameters[0].device
    flat = torch.cat(
        [
            torch.stack([torch.as_tensor(n, dtype=torch.float32, device=device) for n in numbers]),
            torch.tensor([float(p.grad is not None) for p in parameters], device=device),
            *(
                torch.zeros_like(p).ravel() if p.grad is None else p.grad.ravel()
                for p in parameters
            ),
        ]
    )
    processes.sum_(flat)
    sums, used = flat[: len(numbers)], flat[len(numbers) :][: len(parameters)].tolist()
    start = len(numbers) + len(parameters)
    for parameter, times in zip(parameters, used, strict=True):
        stop = start + parameter.numel()
        parameter.grad = flat[start:stop].view_as(parameter) if times else None
        start = stop
    return sums
