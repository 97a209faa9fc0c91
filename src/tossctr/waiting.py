"""How torch's threads wait for each other: asleep, or spinning on a core that others need."""

from __future__ import annotations

import os
import sys
from functools import cache

_POLICY = "OMP_WAIT_POLICY"


def let_threads_sleep() -> None:
    """Ask for threads that sleep while they wait, many times a step; a user's own choice stays.

    OpenMP reads this once, when torch is loaded. If they spin, another busy process makes training
    and scoring ten times slower (benchmarks/beside.py).
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(_POLICY, "PASSIVE")


@cache
def say_if_threads_spin() -> None:
    """Say what to do, once, where torch was there first and its threads are several."""
    import torch

    from tossctr.progress import say

    if _POLICY not in os.environ and torch.get_num_threads() > 1:
        say(
            "torch was imported before tossctr, so its threads spin while they wait and are slow "
            f"beside other programs: import tossctr first, or start Python with {_POLICY}=PASSIVE"
        )
