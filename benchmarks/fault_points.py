"""Kills a command at its n-th change to files: open for writing, rename, removal, sync or commit.

Python's audit events announce most calls before they are made; `os.fsync` and SQLite's commits
have no event and are wrapped. A process that is killed at a point has not made the call. There are
two kinds of additional points: a file that has just been opened (empty, or with half a line at its
end), and a synced file with half of its bytes.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HALF_A_LINE = b'{"half": '
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Event: the positions of its path argument and of the descriptor of that path's folder.
CHANGES = {
    "os.rename": (0, 2), "os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2),
    "os.link": (1, 3), "os.symlink": (1, 2), "os.truncate": (0, None),
}  # fmt: skip


class Points:
    """Counts this process's changes to files below `root`, and kills it at one of them.

    Args:
        root: changes elsewhere are not counted.
        kill_at: the number of the point, from 1; 0 never kills.
        trace: a descriptor that gets one line `what path` per point.
    """

    def __init__(self, root: Path, kill_at: int, trace: int) -> None:
        self.root, self.kill_at, self.trace = f"{root}/", kill_at, trace
        self.count, self.last, self.busy = 0, ("", ""), False
        self.start = time.time()
        self.appended: set[str] = set()

    def install(self) -> None:
        """Start watching, until the process ends: an audit hook cannot be removed."""
        sync = os.fsync

        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            path = _of_descriptor(number)
            self.at("half written", path, lambda: self._halve(path))
            self.at("fsync", path)
            sync(number)

        os.fsync = fsync
        if "sqlalchemy" in sys.modules:
            from sqlalchemy import Engine, event

            event.listen(Engine, "commit", lambda c: self.at("commit", str(c.engine.url.database)))
        sys.addaudithook(self._heard)

    def at(self, what: str, path: str, leave: Callable[[], None] = lambda: None) -> None:
        """Count a point, unless it repeats the last one."""
        if not path.startswith(self.root) or (what, path) == self.last:
            return
        self.last = (what, path)
        self.count += 1
        os.write(self.trace, f"{what} {path.removeprefix(self.root)}\n".encode())
        if self.count == self.kill_at:
            leave()
            os.kill(os.getpid(), signal.SIGKILL)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy or (event != "open" and event not in CHANGES):
            return
        self.busy = True  # this code triggers events, too
        try:
            if event == "open":
                name, _, flags = arguments
                if flags & WRITES and isinstance(name, str | bytes | os.PathLike):
                    self._opened(_absolute(name, None), flags)
                return
            which, folder = CHANGES[event]
            at = arguments[folder] if folder is not None and len(arguments) > folder else None
            self.at(event.removeprefix("os."), _absolute(arguments[which], at))
        finally:
            self.busy = False

    def _opened(self, path: str, flags: int) -> None:
        self.at("open", path)
        if flags & os.O_APPEND:
            self.appended.add(path)
            self.at("half a line", path, lambda: self._leave(path, flags, HALF_A_LINE))
        elif flags & os.O_TRUNC or not Path(path).exists():
            self.at("empty", path, lambda: self._leave(path, flags, b""))

    def _leave(self, path: str, flags: int, content: bytes) -> None:
        descriptor = os.open(path, flags, 0o644)
        os.write(descriptor, content)

    def _halve(self, path: str) -> None:
        """Cut a file that this process has written to half its size; `_opened` handles appends."""
        if Path(path).is_file() and path not in self.appended:
            about = Path(path).stat()
            if about.st_mtime >= self.start - 0.1:
                os.truncate(path, about.st_size // 2)


def _absolute(name: Any, folder: int | None) -> str:
    """The absolute path of a call's argument, with links unresolved."""
    if isinstance(name, int):
        return _of_descriptor(name)
    at = Path.cwd() if folder is None or folder < 0 else Path(_of_descriptor(folder))
    return os.path.normpath(at / os.fsdecode(name))


def _of_descriptor(number: int) -> str:
    return str(Path(f"/proc/self/fd/{number}").readlink())


def run_forked(
    command: Callable[[], None],
    log: Path,
    *,
    cwd: Path | None = None,
    watch: tuple[Path, int] | None = None,
    kill_after: float | None = None,
    limit: int | None = None,
    seconds: float = 300,
) -> tuple[int, list[str]]:
    """Run a command in a fork of this process, which saves its imports.

    Args:
        command: what to call; `SystemExit` is its exit code.
        log: file for its output.
        cwd: working directory.
        watch: the folder whose changes are points, and the point to kill at (0: none).
        kill_after: seconds until it is killed.
        limit: maximum size of files in bytes.
        seconds: time limit.

    Returns:
        Its exit code, negative if it was killed, and its points.
    """
    trace, told = os.pipe2(0) if watch else (-1, -1)
    child = os.fork()
    if child == 0:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if cwd is not None:
            os.chdir(cwd)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = 1
        try:
            if watch is not None:
                os.close(trace)
                Points(*watch, told).install()
            command()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    points: list[str] = []
    if watch:
        os.close(told)
        with os.fdopen(trace, encoding="utf-8") as lines:
            points = lines.read().splitlines()  # until the process has ended
    end = time.monotonic() + (seconds if kill_after is None else kill_after)
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), points
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if kill_after is None:
        raise TimeoutError(f"still running after {seconds} s:\n{log.read_text(errors='replace')}")
    return code, points
