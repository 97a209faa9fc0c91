"""Apply a function to a stream of items in parallel; results keep the order of the items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Several workers: threads, processes or the hosts of a cluster."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """Results of `function(item)` in the order of the items; a bounded number of items is in
        progress at a time. Closing the generator waits until no worker is busy.

        Raises:
            UserError: the one that `function` raised.
        """
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Threads of this process, for functions that release the GIL (Arrow, Numba, hashing).

    Items are read in the caller's thread, at most `threads` ahead of the results.
    """

    threads: int = min(4, os.cpu_count() or 1)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """See `Executor.map`. An error in `items` is raised in order too."""
        pending: deque[Future[R]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for item in items:
                    pending.append(pool.submit(function, item))
                    if len(pending) > self.threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
