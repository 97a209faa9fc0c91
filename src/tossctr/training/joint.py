"""Data-parallel training: a Lightning strategy, and the sum of gradients over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from tossctr.cluster.processes import Processes


class JointStrategy(DDPStrategy):
    """Lightning's DDP strategy without DistributedDataParallel.

    DistributedDataParallel averages gradients at every backward pass. Here each process makes as
    many passes as it has micro-batches, and `sum_gradients` sums once per step, so that the
    gradient is that of the mean over all rows.
    """

    def __init__(self, processes: Processes, **options: Any) -> None:
        super().__init__(cluster_environment=_JoinedProcesses(processes), **options)
        self.processes = processes

    @property
    def root_device(self) -> torch.device:
        (device,) = cast(list[torch.device], self.parallel_devices)
        return device  # the trainer was given one device, for any `local_rank`

    def _configure_launcher(self) -> None:
        pass  # the processes are running

    def configure_ddp(self) -> None:
        model = cast(nn.Module, self.model)
        for tensor in [*model.parameters(), *model.buffers()]:
            if not self.processes.is_first:
                tensor.data.zero_()
            self.processes.sum_(tensor.data)  # all processes start from the first one's weights

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        self.processes.first(
            lambda: self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)
        )


class _JoinedProcesses(ClusterEnvironment):
    """The processes as Lightning's cluster environment; their group exists already."""

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
    """Replace each gradient by its sum over processes, in one all-reduce.

    A process without rows contributes zeros. A parameter without a gradient on all processes has
    none afterwards, as if one process had seen all rows.

    Args:
        model: its parameters' gradients are summed.
        numbers: (n,) numbers to sum in the same all-reduce.
        processes: those that train together.

    Returns:
        (n,) the sums of the numbers.
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
    for parameter, count in zip(parameters, used, strict=True):
        stop = start + parameter.numel()
        parameter.grad = flat[start:stop].view_as(parameter) if count else None
        start = stop
    return sums
