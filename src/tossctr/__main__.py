"""`python -m tossctr`."""

from tossctr.cli import run_process

run_process()
