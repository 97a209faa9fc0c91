"""Whether this process was started as one of several, and as which: read from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tossctr.errors import UserError

# Without it, processes started again may find the addresses of those before them: torch keeps
# one store for all of them.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


@dataclass(frozen=True)
class Place:
    """One of several processes.

    Attributes:
        rank: its number among all, from 0.
        world_size: how many there are.
        local_rank: its number among those of its machine.
        address, port: where the first one listens.
        restarts: how often all have been started again because one was lost.
        of_agent: whether torchrun's agent, which starts all again, is the parent of this process.
        may_go_astray: whether a restart may find addresses of processes that are gone.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int
    restarts: int
    of_agent: bool = False
    may_go_astray: bool = False


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun (or whoever sets its variables) or `srun` gave this process; None for
    a process alone.

    Raises:
        UserError: variables that are missing, or no numbers.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            found = Place(
                rank=int(environment["RANK"]),
                world_size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
                restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
                of_agent="TORCHELASTIC_RUN_ID" in environment,
                may_go_astray=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
                and int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0,
            )
        # Not SLURM_NTASKS: a batch script's own process has that too, and is none of the tasks.
        elif "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
            found = Place(
                rank=int(environment["SLURM_PROCID"]),
                world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
                local_rank=int(environment["SLURM_LOCALID"]),
                address=environment.get("MASTER_ADDR") or _first_host(environment),
                port=int(environment.get("MASTER_PORT") or _port(environment["SLURM_JOB_ID"])),
                restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
            )
        else:
            return None
    except (KeyError, ValueError) as error:
        raise UserError(
            f"started as one of several processes, but a variable is missing or no number: {error}",
            remedy="start with torchrun or srun, which set all of them",
        ) from error
    return found if found.world_size > 1 else None


def _first_host(environment: Mapping[str, str]) -> str:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])


def _port(job: str) -> int:
    """The same for all processes of a job, and another for most other jobs."""
    return 15_000 + int(job) % 10_000
