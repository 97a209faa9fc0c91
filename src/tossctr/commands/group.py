"""What all commands share: `--quiet`, examples in the help, exit codes."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup

from tossctr.commands.examples import EXAMPLES
from tossctr.progress import console

EXIT_CODES = {
    "0": "success",
    "1": "internal error with a traceback, please report",
    "2": "an error in the command line, a config or a file, on one line",
    "3": "another process of the same training was lost; the same command resumes",
    "130, 143": "stopped by Ctrl-C or SIGTERM; the same command resumes",
}


class Interrupted(SystemExit):
    """Ctrl-C while a command runs. Typer would turn a `KeyboardInterrupt` into a silent exit."""


class CommandGroup(TyperGroup):
    """A group that accepts `--quiet` before and after the command's name."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and not command.epilog:
            command.params += [p for p in self.params if p.name == "quiet"]
            command.epilog = indented("Examples:", EXAMPLES.get(cmd_name, ()))
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(128 + signal.SIGINT) from error


def hush(quiet: bool) -> None:
    """Print no progress, only results and errors."""
    if quiet:
        console.quiet = True


def indented(head: str, lines: Iterable[str]) -> str:
    """A heading and indented lines below it."""
    return "\n".join((head, *(f"  {line}" for line in lines)))
