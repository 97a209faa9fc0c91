"""Processes that train together: what they tell each other, and how an error of one ends all.

Tensors and JSON go between them, never objects that could run code.
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
from tossctr.cluster.place import Place
from tossctr.errors import UserError

T = TypeVar("T")
STEP_TIMEOUT = timedelta(minutes=30)  # a step's exchange takes longer only if a machine is gone
WAIT_TIMEOUT = timedelta(days=2)  # for the first process to prepare data


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by itself where nothing is said.

    All methods but the properties are collective: each process has to call them, in the same order.

    Attributes:
        rank: the number of this one, from 0. The first writes, prepares and tells.
        world_size: how many there are.
        local_rank: the number among those of this machine.
        restarts: how often all were started again because one was lost.

    Raises:
        PeerLost: from any method, where another process has ended.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    restarts: int = 0
    # On the CPU, with the long timeout. The default group sums gradients where these are.
    _group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world_size == 1

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor, of one shape everywhere, by the sum over processes."""
        if not self.alone:
            with _peers():
                dist.all_reduce(tensor)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each over processes."""
        if self.alone:
            return list(numbers)
        tensor = torch.tensor(numbers)
        with _peers():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return [int(number) for number in tensor]

    def gather(self, tensor: Tensor) -> Tensor | None:
        """(N_r, ...) CPU tensors, joined along their first axis in the order of ranks, for the
        first process; None for the others."""
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

    def tell(self, value: T) -> T:
        """The first process's value, which JSON can hold (NaN included), for all."""
        return value if self.alone else json.loads(self._texts(json.dumps(value))[0])

    def all_tell(self, value: T) -> list[T]:
        """Every process's value, which JSON can hold, in the order of ranks."""
        return [value] if self.alone else [json.loads(t) for t in self._texts(json.dumps(value))]

    def first(self, do: Callable[[], object]) -> None:
        """Let the first process `do` something while the others wait.

        Raises:
            UserError: what it raised, on all processes; only one tells it.
        """
        self._or_all_fail(do if self.is_first else None)

    def first_then(self, do: Callable[[], T], others: Callable[[], T]) -> T:
        """Let the first process `do` something while the others wait, then these do `others`.

        Raises:
            UserError: what either raised, on all processes; only one tells it.
        """
        done = self._or_all_fail(do if self.is_first else None)
        return self._or_all_fail(others if not self.is_first else None) or done  # type: ignore[return-value]

    def everywhere(self, do: Callable[[], T]) -> T:
        """Let each process do something.

        Raises:
            UserError: what one raised, on all processes; only one tells it.
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
        """Raise on all processes where one comes with an error.

        Raises:
            UserError: on the first process.
            ErrorElsewhere: on the others.
        """
        lines = self.all_tell(None if error is None else error.line())
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
def joined(place: Place, *, cuda: bool) -> Iterator[Processes]:
    """Join the other processes (gradients by NCCL on GPUs, else by gloo), or take the group that is
    there already.

    Raises:
        PeerLost: they cannot be reached.
    """
    started_here = not dist.is_initialized()
    with _peers():
        if started_here:
            os.environ.update(MASTER_ADDR=place.address, MASTER_PORT=str(place.port))
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                rank=place.rank,
                world_size=place.world_size,
                timeout=STEP_TIMEOUT,
            )
        group = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT)
    yield Processes(place.rank, place.world_size, place.local_rank, place.restarts, group)
    if started_here:  # not after an exception: others may be gone
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's, of any backend
        reason = str(error).splitlines()[0]
        raise PeerLost(f"another process was lost: {reason}") from error
