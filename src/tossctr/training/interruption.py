"""SIGINT and SIGTERM as a wish to stop at the next safe point, instead of anywhere."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ECHO_SECONDS = 1.0  # a launcher passes on what a terminal has sent to all: not a second Ctrl-C


class Stopped(BaseException):
    """A run was asked to stop and has kept what it needs to go on.

    Not an `Exception`, so that nothing on the way takes it for a failure, and not a
    `KeyboardInterrupt`, which Lightning turns into `sys.exit(1)`.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class StopSignal:
    """What has been asked for; `number` is the signal's, None before any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._process = os.getpid()
        self._since = 0.0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader process: it ends when the main one says so
        echo = time.monotonic() - self._since < ECHO_SECONDS
        if self.number is not None and number == signal.SIGINT and not echo:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.number = number
        self._since = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive both signals inside; threads other than the main one cannot."""
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
        """Take SIGTERM back from Lightning, which ends a run between two of its own hooks."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._receive)
