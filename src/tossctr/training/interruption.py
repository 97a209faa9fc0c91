"""SIGINT and SIGTERM request a stop at the next safe point."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ECHO_SECONDS = 1.0  # a launcher forwards a Ctrl-C that the terminal sent to all: not a second one


class Stopped(BaseException):
    """A run stopped on request; it has saved a checkpoint to resume from.

    Not an `Exception`, so that no handler mistakes it for a failure, and not a `KeyboardInterrupt`,
    which Lightning turns into `sys.exit(1)`.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class StopSignal:
    """A stop request; `number` is that of the signal, None before any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._process = os.getpid()
        self._since = 0.0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader process: the main process ends it
        echo = time.monotonic() - self._since < ECHO_SECONDS
        if self.number is not None and number == signal.SIGINT and not echo:
            raise KeyboardInterrupt  # a second Ctrl-C stops at once
        self.number = number
        self._since = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals inside the context; no effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def keep_listening(self) -> None:
        """Replace Lightning's SIGTERM handler, which would end the run between two of its hooks."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._receive)
