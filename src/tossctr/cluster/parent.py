"""Worker processes that stop when their launcher has been killed and can no longer stop them."""

from __future__ import annotations

import os
import signal
import threading
import time

from tossctr.cluster.errors import LOST

POLL_SECONDS = 1.0
STOP_SECONDS = 120.0  # after a signal, for the current step and a checkpoint


def end_with_parent(parent: int) -> None:
    """Watch the parent in a thread. Once it is gone, send SIGTERM to this process, so that training
    stops after its current step; if it still runs `STOP_SECONDS` later, exit with code `LOST`.

    Args:
        parent: the parent's process id.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(LOST)
