"""The state of torch's random generators: the CPU's, and the current GPU's if there is one."""

from __future__ import annotations

import torch
from torch import Tensor


def generator_states() -> dict[str, Tensor]:
    """By `cpu` and `cuda`."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_generators(state: dict[str, Tensor]) -> None:
    """Restore what `generator_states` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
