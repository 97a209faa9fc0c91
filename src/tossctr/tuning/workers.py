"""The processes that work on a study, each known by a lock file that it holds while it runs.

<folder>/lock        held briefly, whenever the study is changed
<folder>/workers/    one lock file per process
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tossctr.files import locked, opened_lock


class Workers:
    """The processes that work on the study in `folder`, including this one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.own: str | None = None  # this process's name, while it is registered

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the study's lock: no other process changes the study."""
        # Not `files.locked`, which logs that it waits: these waits are short and frequent.
        handle = opened_lock(self._folder / "lock")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Register this process as a worker; lock files left by dead processes are removed."""
        self.own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with ExitStack() as stack:
            with self.exclusive():
                for file in self._folder.glob("workers/*"):
                    _is_held(file)
                stack.enter_context(locked(self._file(self.own), f"the worker {self.own}"))
            yield
        self.own = None

    def is_alive(self, worker: str) -> bool:
        """Whether the process of that name is running."""
        # A process must not test its own lock: closing the file would release it.
        return worker == self.own or _is_held(self._file(worker))

    def _file(self, worker: str) -> Path:
        return self._folder / "workers" / worker


def _is_held(file: Path) -> bool:
    """Whether a process holds a lock file. The system releases a dead process's lock; its file is
    removed."""
    try:
        with file.open("r+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    file.unlink(missing_ok=True)
    return False
