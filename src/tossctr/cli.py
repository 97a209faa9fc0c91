"""The entry point: runs a command and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import tossctr.commands  # noqa: F401 (registers them)
from tossctr import __version__
from tossctr.commands.group import Interrupted
from tossctr.commands.options import app
from tossctr.errors import UserError
from tossctr.files import refused
from tossctr.progress import console, say
from tossctr.training.interruption import Stopped

INTERRUPTED = "interrupted: finished results are kept, and the same command resumes"
# Of no particular file; Numba writes compiled loops without naming theirs.
_SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _fail(error: UserError) -> NoReturn:
    console.quiet = False
    text = f"error: {error.line()}"
    console.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


def _stopped(message: str, number: int) -> NoReturn:
    console.quiet = False  # --quiet hides progress, not how to resume
    say(message)
    sys.exit(128 + number)


class _Terminated(SystemExit):
    """SIGTERM as an exception, so that cleanup runs as after SIGINT. As a SystemExit it ends a
    loader's process without a traceback."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(128 + number)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """User errors are one line and exit code 2; a signal N ends with 128 + N."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.filename is None and error.errno not in _SYSTEM_ERRORS:
            raise  # not about a file, so an internal error
        _fail(refused(error, "the operating system reports an error", None))
    except Stopped as stopped:
        _stopped(str(stopped), stopped.number)
    except _Terminated:
        _stopped(INTERRUPTED, signal.SIGTERM)
    except (KeyboardInterrupt, Interrupted):
        _stopped(INTERRUPTED, signal.SIGINT)


def _fill_standard_descriptors() -> None:
    """Open standard descriptors that the caller has closed (`2>&-`). Otherwise the next file opened
    would get that number, and what libraries print would be written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
            os.set_inheritable(number, True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line `arguments`; None takes those of the process."""
    _fill_standard_descriptors()
    console.quiet = False
    with one_line_errors():
        app(arguments)


def run_process() -> None:
    """The entry point of a process: `main`, with fewer garbage collections.

    Imports create many objects that stay. Looking through them for garbage takes a tenth of the
    time of `import torch`, and the interpreter's collections on exit take two tenths more.
    """
    gc.set_threshold(50_000, 10, 10)
    try:
        main()
    finally:
        gc.freeze()
