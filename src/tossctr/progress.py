"""Progress and messages: Rich bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from tossctr.printable import printable
from tossctr.redaction import redacted


class _Stderr(io.TextIOBase):
    """The present standard error. Text that cannot be written is dropped: a full disk under a log
    or a closed terminal must not end a training.
    """

    @property
    def _file(self) -> TextIO | None:
        # Rich replaces sys.stderr while it shows bars.
        file: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return file

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._file is not None:
            with suppress(OSError, ValueError):  # ValueError: closed
                self._file.write(text)
        return len(text)

    def flush(self) -> None:
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._file.flush()

    def isatty(self) -> bool:
        try:
            return self._file is not None and self._file.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        if self._file is None:
            raise io.UnsupportedOperation("fileno")
        return self._file.fileno()


class PlainConsole(Console):
    """A console that shows text literally: without markup, emoji names or control characters."""

    def __init__(self, file: IO[str] | None = None) -> None:
        super().__init__(file=file, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = PlainConsole(_Stderr())  # type: ignore[arg-type]
PLAIN_EVERY_S = 10.0  # seconds between lines without a terminal
_STATM = Path("/proc/self/statm")


def resident_mb() -> float | None:
    """Present resident memory of this process in MB (10**6 bytes); None without /proc."""
    if not _STATM.exists():
        return None
    pages = int(_STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _memory() -> str:
    resident = resident_mb()
    return "" if resident is None else f"{resident:,.0f} MB"


class NameColumn(ProgressColumn):
    """The task's name, without markup."""

    def render(self, task: Task) -> Text:
        return Text(printable(task.description), style="progress.description")


class RateColumn(ProgressColumn):
    """Rows per second over the whole task, as `12,345 rows/s`."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        speed = task.completed / elapsed if elapsed else 0.0
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="progress.data.speed")


class MemoryColumn(ProgressColumn):
    """Resident memory of the process, as `612 MB`."""

    max_refresh = 0.5  # seconds

    def render(self, task: Task) -> Text:
        return Text(_memory(), style="progress.filesize")


def bars() -> Progress:
    """One line with name, bar, rows, rows/s, memory, elapsed time and ETA; the bar fills the
    width."""

    def fixed() -> Column:
        return Column(no_wrap=True)

    return Progress(
        SpinnerColumn(table_column=fixed()),
        NameColumn(table_column=fixed()),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=fixed()),
        RateColumn(table_column=fixed()),
        MemoryColumn(table_column=fixed()),
        TimeElapsedColumn(table_column=fixed()),
        TimeRemainingColumn(table_column=fixed()),
        console=console,
        expand=True,
    )


@contextmanager
def track(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show progress over `total` rows (None: unknown) and yield `advance(rows)`.

    >>> with track("prepare", 1000) as advance:  # doctest: +SKIP
    ...     advance(250)
    """
    if console.is_terminal and not console.quiet:
        with bars() as progress:
            task = progress.add_task(redacted(name), total=total)
            yield lambda rows: progress.advance(task, rows)
        return

    start = last = time.monotonic()
    done = 0

    def advance(rows: int) -> None:
        nonlocal done, last
        done += rows
        now = time.monotonic()
        if now - last >= PLAIN_EVERY_S:
            last = now
            rate = done / (now - start)
            of = f"/{total:,}" if total else ""
            left = f"{(total - done) / rate:,.0f} s left" if total else ""
            parts = (f"{name}: {done:,}{of} rows", f"{rate:,.0f} rows/s", left, _memory())
            say(", ".join(part for part in parts if part))

    yield advance
    took = time.monotonic() - start
    memory = f", {_memory()}" if _memory() else ""
    say(f"{name}: {done:,} rows in {took:.1f} s ({done / max(took, 1e-9):,.0f} rows/s{memory})")


def say(message: str) -> None:
    """Print one line to stderr, so that results on stdout can be piped."""
    console.print(redacted(message), highlight=False, soft_wrap=True)
