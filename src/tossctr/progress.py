"""The one place for progress and messages: Rich bars on a terminal, plain lines elsewhere."""

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
    """Standard error as it is at the moment; what it does not take is lost.

    A full disk under a log, a closed pipe or terminal must not end a training that only reports.
    """

    @property
    def _file(self) -> TextIO | None:
        # While bars are shown, Rich has put itself in the place of sys.stderr.
        file: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return file

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._file is not None:
            with suppress(OSError, ValueError):  # ValueError: it is closed
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
    """A console for text that others wrote: nothing in it is markup, an emoji's name or a control
    character."""

    def __init__(self, file: IO[str] | None = None) -> None:
        super().__init__(file=file, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = PlainConsole(_Stderr())  # type: ignore[arg-type]
PLAIN_EVERY_S = 10.0  # seconds between lines where there is no terminal
_STATM = Path("/proc/self/statm")


def resident_mb() -> float | None:
    """Resident memory of this process now, in MB (10**6 bytes); None where no /proc says so."""
    if not _STATM.exists():
        return None
    pages = int(_STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _memory() -> str:
    resident = resident_mb()
    return "" if resident is None else f"{resident:,.0f} MB"


class NameColumn(ProgressColumn):
    """What is under way; names of files and experiments as they are."""

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
    """The project's progress display: name, bar, rows, rows/s, memory, elapsed, ETA; one line,
    whose bar takes what the numbers leave."""

    def whole() -> Column:
        return Column(no_wrap=True)

    return Progress(
        SpinnerColumn(table_column=whole()),
        NameColumn(table_column=whole()),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=whole()),
        RateColumn(table_column=whole()),
        MemoryColumn(table_column=whole()),
        TimeElapsedColumn(table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
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
    """One line to the user (stderr, so that results can be piped)."""
    console.print(redacted(message), highlight=False, soft_wrap=True)
