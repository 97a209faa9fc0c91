"""Collective operations of processes that train together, and how an error of one ends all.

They exchange tensors and JSON, never pickled objects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tossctr.cluster.errors import ErrorElsewhere, PeerLost
from tossctr.cluster.rank import ProcessRank
from tossctr.errors import UserError

T = TypeVar("T")
STEP_TIMEOUT = timedelta(minutes=30)  # of an exchange in training: beyond it, a machine is lost
WAIT_TIMEOUT = timedelta(days=2)  # of other exchanges, as rank 0 may prepare data meanwhile


@dataclass(frozen=True)
class Processes:
    """The processes that train together, seen from one of them; by default a single process.

    All methods are collective: every process has to call them in the same order.

    Attributes:
        rank: of this process, from 0. Rank 0 prepares data, writes files and prints.
        world_size: number of processes.
        local_rank: rank among the processes of this machine.
        restarts: how often all processes were restarted because one was lost.

    Raises:
        PeerLost: by any method, if another process has ended.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    restarts: int = 0
    # Of CPU tensors, with the long timeout; torch's default group sums gradients on their device.
    _group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world_size == 1

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor, which has the same shape on all processes, by its sum over them."""
        if not self.alone:
            with _peers():
                dist.all_reduce(tensor)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The maximum of each number over processes."""
        if self.alone:
            return list(numbers)
        tensor = torch.tensor(numbers)
        with _peers():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return [int(number) for number in tensor]

    def gather(self, tensor: Tensor) -> Tensor | None:
        """Concatenate (N_r, ...) CPU tensors by rank on rank 0; the other processes get None."""
        if self.alone:
            return tensor
        sizes = self._gathered(torch.tensor([len(tensor)]))
        padded = tensor.new_zeros(int(max(sizes)), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        into = [torch.empty_like(padded) for _ in sizes] if self.is_first else None
        with _peers():
            dist.gather(padded, into, group=self._group)
        if into is None:
            return None
        return torch.cat([part[: int(size)] for part, size in zip(into, sizes, strict=True)])

    def broadcast(self, value: T) -> T:
        """Rank 0's value on all processes. It has to be JSON; NaN is allowed."""
        return value if self.alone else json.loads(self._texts(json.dumps(value))[0])

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, on each of them. They have to be JSON."""
        return [value] if self.alone else [json.loads(t) for t in self._texts(json.dumps(value))]

    def first(self, do: Callable[[], object]) -> None:
        """Run `do` on rank 0 while the others wait.

        Raises:
            UserError: raised by `do`, then on all processes; rank 0 reports it.
        """
        self._or_all_fail(do if self.is_first else None)

    def first_then(self, do: Callable[[], T], others: Callable[[], T]) -> T:
        """Run `do` on rank 0 while the others wait, then `others` on these.

        Raises:
            UserError: raised by either, then on all processes; rank 0 reports it.
        """
        done = self._or_all_fail(do if self.is_first else None)
        return self._or_all_fail(others if not self.is_first else None) or done  # type: ignore[return-value]

    def everywhere(self, do: Callable[[], T]) -> T:
        """Run `do` on every process.

        Raises:
            UserError: raised by one of them, then on all processes; rank 0 reports it.
        """
        return self._or_all_fail(do)  # type: ignore[return-value]

    def _or_all_fail(self, do: Callable[[], T] | None) -> T | None:
        if self.alone:
            return do() if do is not None else None
        done, error = None, None
        try:
            if do is not None:
                done = do()
        except UserError as raised:
            error = raised
        self.fail_together(error)
        return done

    def fail_together(self, error: UserError | None) -> None:
        """Raise on all processes if any of them passes an error.

        Raises:
            UserError: on rank 0.
            ErrorElsewhere: on the others.
        """
        lines = self.all_gather(None if error is None else error.line())
        failed = [rank for rank, line in enumerate(lines) if line is not None]
        if failed:
            text = lines[failed[0]] or ""
            if self.is_first:
                raise error or UserError(f"process {failed[0]} of {self.world_size}: {text}")
            raise ErrorElsewhere(text) from error

    def _texts(self, text: str) -> list[str]:
        content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        sizes = self._gathered(torch.tensor([len(content)]))
        padded = content.new_zeros(int(max(sizes)))
        padded[: len(content)] = content
        return [
            part[: int(size)].numpy().tobytes().decode()
            for part, size in zip(self._gathered(padded), sizes, strict=True)
        ]

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        into = [torch.empty_like(tensor) for _ in range(self.world_size)]
        with _peers():
            dist.all_gather(into, tensor, group=self._group)
        return into


ALONE = Processes()


@contextmanager
def join_processes(process: ProcessRank, *, cuda: bool) -> Iterator[Processes]:
    """Initialise torch.distributed (NCCL on GPUs, else gloo), or use the group that exists.

    Raises:
        PeerLost: the other processes cannot be reached.
    """
    started_here = not dist.is_initialized()
    with _peers():
        if started_here:
            os.environ.update(MASTER_ADDR=process.address, MASTER_PORT=str(process.port))
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                rank=process.rank,
                world_size=process.world_size,
                timeout=STEP_TIMEOUT,
            )
        group = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT)
    yield Processes(process.rank, process.world_size, process.local_rank, process.restarts, group)
    if started_here:  # not after an exception, when waiting for lost processes could hang
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's, of any backend
        reason = str(error).splitlines()[0]
        raise PeerLost(f"another process was lost: {reason}") from error
