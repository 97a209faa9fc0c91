"""Real processes that train together: forks of the test's own, whose imports they share."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

from tossctr.cluster.processes import ALONE, Processes, join_processes
from tossctr.cluster.rank import ProcessRank
from tossctr.progress import console


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What `work` returned in each of so many processes; what it raised, in its place. None for a
    process that ended without either."""
    if count == 1:
        return [work(ALONE)]
    context = multiprocessing.get_context("fork")
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    workers = [
        context.Process(
            target=_run, args=(work, ProcessRank(rank, count, rank, "127.0.0.1", port, 0), end)
        )
        for rank, (_, end) in enumerate(pipes)
    ]
    for worker, (_, end) in zip(workers, pipes, strict=True):
        worker.start()
        end.close()
    found = []
    for start, _ in pipes:
        try:
            found.append(start.recv())
        except EOFError:
            found.append(None)
    for worker in workers:
        worker.join()
    return found


def _run(work: Callable[[Processes], Any], process: ProcessRank, end: Any) -> None:
    torch.set_num_threads(1)
    console.quiet = process.rank > 0
    try:
        with join_processes(process, cuda=False) as processes:
            end.send(work(processes))
    except BaseException as error:
        traceback.print_exc()  # shown where the test fails
        end.send(error)
    finally:
        end.close()
        os._exit(0)  # nothing of the test's own is to be torn down here
