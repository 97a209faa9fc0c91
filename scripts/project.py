"""Shared by the scripts; makes the project's root the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.chdir(ROOT)

try:
    import tossctr.cli
except ModuleNotFoundError as error:
    if error.name != "tossctr":
        raise
    print(
        f"error: TossCTR is not installed in {sys.executable}; run `make lint` once in {ROOT}, "
        "then use .venv/bin/python",
        file=sys.stderr,
    )
    sys.exit(2)

command = tossctr.cli.main
one_line_errors = tossctr.cli.one_line_errors
