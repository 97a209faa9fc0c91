"""What every command has besides its own options: `--quiet`, examples, documented exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup

from tossctr.commands.examples import EXAMPLES
from tossctr.progress import console

EXIT_CODES = {
    "0": "done",
    "1": "a bug of ours, with a traceback",
    "2": "a mistake in the command line, a config or a file, on one line",
    "3": "another process of the same training was lost; the same command resumes",
    "130, 143": "stopped by Ctrl-C or SIGTERM; the same command resumes",
}


class CommandGroup(TyperGroup):
    """A group whose commands take `--quiet` too: people write it where they think of it."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and not command.epilog:
            command.params += [p for p in self.params if p.name == "quiet"]
            command.epilog = indented("Examples:", EXAMPLES.get(cmd_name, ()))
        return command


def hush(quiet: bool) -> None:
    """Silence progress; results and errors stay."""
    if quiet:
        console.quiet = True


def indented(head: str, lines: Iterable[str]) -> str:
    """An epilog: a head, and a line each below it."""
    return "\n".join((head, *(f"  {line}" for line in lines)))
