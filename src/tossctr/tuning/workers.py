"""The processes that work on a study: a lock file for each, and one that all take for moments.

<folder>/lock        held while the study is changed
<folder>/workers/    one file a process, which holds its lock as long as it lives
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
    """Those of the study in `folder`, this process among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.own: str | None = None  # this process's name, while it is at work

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process changes the study meanwhile."""
        # Not `files.locked`, which says that it waits: here all do, for moments.
        handle = opened_lock(self._folder / "lock")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """This process is one of them meanwhile; files that dead ones left are removed."""
        self.own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with ExitStack() as stack:
            with self.alone():
                for file in self._folder.glob("workers/*"):
                    _is_held(file)
                stack.enter_context(locked(self._file(self.own), f"the worker {self.own}"))
            yield
        self.own = None

    def is_alive(self, worker: str) -> bool:
        """Whether the process of that name is at work."""
        # Its own lock, a process must not try: to close the file would let go of it.
        return worker == self.own or _is_held(self._file(worker))

    def _file(self, worker: str) -> Path:
        return self._folder / "workers" / worker


def _is_held(file: Path) -> bool:
    """Whether a process holds a lock file; the system lets go of a dead one's, which is removed."""
    try:
        with file.open("r+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    file.unlink(missing_ok=True)
    return False
