"""Processes that end when the one that started them is gone: a killed launcher can stop nobody."""

from __future__ import annotations

import os
import signal
import threading
import time

from tossctr.cluster.errors import LOST

LOOK_SECONDS = 1.0
STOP_SECONDS = 120.0  # for a last step and its checkpoint, once a signal has come


def end_with_parent(parent: int) -> None:
    """From now on, once the parent is gone: SIGTERM to this process, which training takes at its
    next safe point, and an exit with code `LOST` where that is not heeded.

    Args:
        parent: its process id.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(LOST)
