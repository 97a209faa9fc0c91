"""Errors of one process that are caused by another."""

from __future__ import annotations

from tossctr.errors import UserError

LOST = 3  # exit code of a process that lost contact with another


class PeerLost(Exception):
    """Another process has ended, so this one cannot continue; its checkpoints are kept."""


class ErrorElsewhere(UserError):
    """An error that another process reports to the user."""
