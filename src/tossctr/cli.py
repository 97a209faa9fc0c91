"""The entry point: commands, with user errors as one line and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import tossctr.commands  # noqa: F401 (registers them)
from tossctr import __version__
from tossctr.commands.options import app
from tossctr.errors import UserError
from tossctr.files import refused
from tossctr.progress import console, say
from tossctr.training.interruption import Stopped


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _fail(error: UserError) -> NoReturn:
    text = f"error: {error.line()}"
    console.quiet = False  # which `verbose: 0` made it
    console.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """User errors are one line and exit code 2; a signal N ends with 128 + N."""
    # As an exception, SIGTERM passes through what cleans up, as SIGINT does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise  # not about a file: a bug
        _fail(refused(error, "the system refuses", None))
    except Stopped as stopped:
        say(str(stopped))
        sys.exit(128 + stopped.number)
    except KeyboardInterrupt:
        say("interrupted: earlier results are as they were")
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; `arguments` of None are those of the process."""
    with one_line_errors():
        app(arguments)
