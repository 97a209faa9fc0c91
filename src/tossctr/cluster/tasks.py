"""Work on many rows by Ray's tasks, in processes of this machine or of a cluster.

Ray places the tasks, and runs those of a lost process or host again; memory is bounded by handing
out few tasks at a time.
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

from tossctr.data.preparing.parallel import Spread
from tossctr.errors import UserError
from tossctr.progress import console, say

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3  # of a task whose process or host was lost
AHEAD = 2  # tasks handed out for each worker, so that none waits while results are taken
_STORE_BYTES = 256 << 20  # of shared memory; results are small, rows go through files
_WAIT_SECONDS = 600  # for a cluster to have so many CPUs free, or to grow


@contextmanager
def workers(count: int, *, gpus: bool = False) -> Iterator[Spread]:
    """So many processes of one CPU each, spread over the hosts of the cluster that `RAY_ADDRESS`
    names, or else started on this machine; they end with the context.

    Args:
        count: how many tasks run at once.
        gpus: each has a GPU too.

    Raises:
        UserError: Ray is not installed, there is no such cluster, it has no room, or processes are
            lost again and again.
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
                say(f"waiting for {count} free {'GPUs' if gpus else 'CPUs'} in Ray's cluster")
            ray.get(group.ready(), timeout=_WAIT_SECONDS)
            task = ray.remote(_run).options(
                num_cpus=1,
                num_gpus=int(gpus),
                max_retries=RETRIES,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            )
            yield _Tasks(task, AHEAD * count)
        except GetTimeoutError as error:
            raise UserError(
                f"Ray's cluster had no room within {_WAIT_SECONDS} s",
                key="--workers",
                value=count,
                remedy="ask for fewer, or see what runs there: ray status",
            ) from error
        finally:
            remove_placement_group(group)


@contextmanager
def connected(count: int, *, tell: bool = False) -> Iterator[None]:
    """Ray's cluster that `RAY_ADDRESS` names, or one of so many CPUs on this machine, which ends
    with the context. `tell`: what its processes say is said here.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
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

    if ray.is_initialized():  # by the caller, whose it stays
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    started_here: dict[str, Any] = {
        "num_cpus": count,
        "include_dashboard": tell,  # Ray Train asks it how its own processes are
        "object_store_memory": _STORE_BYTES,
    }
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",  # not a cluster that happens to run here
            log_to_driver=tell,
            logging_level=logging.ERROR,
            **({} if address else started_here),
        )
    except (ConnectionError, ValueError) as error:
        signal.signal(signal.SIGTERM, handler)
        raise UserError(
            f"no Ray cluster answers: {error}",
            key="RAY_ADDRESS",
            value=address,
            remedy="start one: ray start --head; or give its token: RAY_AUTH_MODE=token",
        ) from error
    except Exception as error:  # Ray has no type of its own for a start that takes too long
        signal.signal(signal.SIGTERM, handler)
        raise UserError(
            f"Ray does not start: {error}", remedy="give the same command again"
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
        # While Ray waits it catches what a handler raises, and raises another SystemExit.
        if terminated and callable(handler):
            handler(terminated[0], None)
        raise
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


class _Tasks:
    """A `Spread`."""

    def __init__(self, task: Any, ahead: int) -> None:
        self._task, self._ahead = task, ahead

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        import ray
        from ray import cloudpickle

        # From this process to its workers, never from a file. As bytes, which make arrays that can
        # be written; in a list, so that a process fetches them once and not with each task.
        shared = [ray.put(cloudpickle.dumps(work))]
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
            f"a worker was lost {RETRIES + 1} times at the same rows: {type(error).__name__}",
            remedy="see whether its host ran out of memory; fewer --workers need less",
        ) from error
    if isinstance(result, UserError):
        raise result
    return result


def _run(shared: list[Any], item: Any) -> Any:
    """A task. An error of the user's is a result: Ray need not run it again, nor report it."""
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
