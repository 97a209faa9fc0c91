"""How one of several processes ends because of another."""

from __future__ import annotations

from tossctr.errors import UserError

LOST = 3  # exit code of a process that lost another one


class PeerLost(Exception):
    """Another process has ended, so that this one cannot go on; what was kept is still there."""


class ErrorElsewhere(UserError):
    """An error that another process tells the user."""
