"""Work on a stream by several at once, results in the stream's order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)


class Spread(Protocol):
    """`map(work, items)` in other processes, here or elsewhere: results in the order of the items,
    a bounded number at a time; closed, it ends when nobody is at work any more. An error of the
    user's in `work` is raised here."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]: ...


def ordered_map(
    work: Callable[[T], R], items: Iterable[T], threads: int = THREADS
) -> Generator[R, None, None]:
    """`map(work, items)` on threads, for work that releases the GIL (Arrow, Numba, hashing).

    The caller's thread reads `items` ahead of the work, at most `threads` items, so that memory
    stays bounded. An error in `work` or `items` is raised here, in the order of the items.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
