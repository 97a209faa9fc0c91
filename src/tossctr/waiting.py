"""Let torch's threads sleep while they wait, instead of spinning on a core."""

from __future__ import annotations

import os
import sys
from functools import cache

_POLICY = "OMP_WAIT_POLICY"


def let_threads_sleep() -> None:
    """Set OpenMP's wait policy to sleeping, unless the user has set it.

    OpenMP reads it once, when torch is loaded. Spinning threads make training and scoring ten times
    slower if another process is busy (benchmarks/beside.py).
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(_POLICY, "PASSIVE")


@cache
def say_if_threads_spin() -> None:
    """Warn once if torch was imported before tossctr and uses several threads."""
    import torch

    from tossctr.progress import say

    if _POLICY not in os.environ and torch.get_num_threads() > 1:
        say(
            "torch was imported before tossctr, so its threads spin while they wait, which is slow "
            f"if other programs run: import tossctr first, or start Python with {_POLICY}=PASSIVE"
        )
