"""Row processing as Ray tasks, on this machine or on a cluster.

Ray schedules the tasks and retries those of a lost process or host. Only a few tasks are submitted
ahead of the results, which bounds memory.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, TypeVar

from tossctr.data.executor import Executor
from tossctr.errors import UserError
from tossctr.progress import console, say

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3  # of a task whose process or host was lost
AHEAD = 2  # submitted tasks per worker, so that workers are busy while results are consumed
_STORE_BYTES = 256 << 20  # of shared memory; enough, as results are small and rows go through files
_WAIT_SECONDS = 600  # until the cluster has enough free CPUs, or has grown


@contextmanager
def workers(count: int, *, gpus: bool = False) -> Iterator[Executor]:
    """Worker processes on the Ray cluster that `RAY_ADDRESS` names, by default on this machine.
    They end with the context.

    Args:
        count: number of workers, with one CPU each.
        gpus: whether each worker has a GPU too.

    Raises:
        UserError: Ray is not installed, the cluster is missing or full, or a task lost its worker
            more than `RETRIES` times.
    """
    with connected(count):
        import ray
        from ray.exceptions import GetTimeoutError
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}
        group = placement_group([bundle] * count, strategy="SPREAD")
        try:
            if not group.wait(5):
                say(f"waiting for {count} free {'GPUs' if gpus else 'CPUs'} in the Ray cluster")
            ray.get(group.ready(), timeout=_WAIT_SECONDS)
            task = ray.remote(_run).options(
                num_cpus=1,
                num_gpus=int(gpus),
                max_retries=RETRIES,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            )
            yield RayExecutor(task, AHEAD * count)
        except GetTimeoutError as error:
            raise UserError(
                f"the Ray cluster had too few free CPUs or GPUs for {_WAIT_SECONDS} s",
                key="--workers",
                value=count,
                remedy="give fewer workers, or check the cluster with: ray status",
            ) from error
        finally:
            remove_placement_group(group)


@contextmanager
def connected(count: int, *, show_logs: bool = False) -> Iterator[None]:
    """Connect to the Ray cluster that `RAY_ADDRESS` names, or start one with `count` CPUs on this
    machine, which ends with the context.

    Args:
        count: number of CPUs.
        show_logs: print what the workers write to standard output and error.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or Ray does not start.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed",
            key="--engine",
            value="ray",
            remedy="pip install 'tossctr[ray]'",
        ) from error

    if ray.is_initialized():  # by the caller, who also shuts it down
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    started_here: dict[str, Any] = {
        "num_cpus": count,
        "include_dashboard": show_logs,  # Ray Train asks it about the workers
        "object_store_memory": _STORE_BYTES,
    }
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",  # not a cluster that is already running on this machine
            log_to_driver=show_logs,
            logging_level=logging.ERROR,
            **({} if address else started_here),
        )
    except (ConnectionError, ValueError) as error:
        signal.signal(signal.SIGTERM, handler)
        raise UserError(
            f"the Ray cluster does not answer: {error}",
            key="RAY_ADDRESS",
            value=address,
            remedy="start one (ray start --head), or set RAY_AUTH_MODE=token for its token",
        ) from error
    except Exception as error:  # Ray raises no specific type when its start times out
        signal.signal(signal.SIGTERM, handler)
        raise UserError(
            f"Ray does not start: {error}", remedy="run the same command again"
        ) from error
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.append(number)
        if callable(handler):
            handler(number, frame)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit:
        # Ray replaces an exception that a signal handler raises while it waits.
        if terminated and callable(handler):
            handler(terminated[0], None)
        raise
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


class RayExecutor:
    """Tasks of Ray, which runs those of a lost process or host again."""

    def __init__(self, task: Any, ahead: int) -> None:
        self._task, self._ahead = task, ahead

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        import ray
        from ray import cloudpickle

        # Pickled only between this process and its workers, never to a file. Unpickled from bytes,
        # arrays are writable; the reference is in a list so that a worker fetches it only once.
        shared = [ray.put(cloudpickle.dumps(function))]
        pending: deque[Any] = deque()
        try:
            for item in items:
                pending.append(self._task.remote(shared, item))
                if len(pending) > self._ahead:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            for left in pending:
                ray.cancel(left)
            if pending:
                ray.wait(list(pending), num_returns=len(pending))


def _result(of: Any) -> Any:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    try:
        result = ray.get(of)
    except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
        raise UserError(
            f"workers were lost {RETRIES + 1} times at the same rows: {type(error).__name__}",
            remedy="check whether the host ran out of memory; fewer --workers need less",
        ) from error
    if isinstance(result, UserError):
        raise result
    return result


def _run(shared: list[Any], item: Any) -> Any:
    """A task. It returns a UserError, which Ray would retry and log if it were raised."""
    console.quiet = True
    try:
        return _fetched(shared[0])(item)
    except UserError as error:
        return error


@lru_cache(maxsize=1)
def _fetched(work: Any) -> Callable[[Any], Any]:
    import ray
    from ray import cloudpickle

    found: Callable[[Any], Any] = cloudpickle.loads(ray.get(work))
    return found
