"""The rank of this process among several, from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tossctr.errors import UserError

# By default torch shares one store between restarts, so that restarted processes may read the
# addresses of ended ones.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


@dataclass(frozen=True)
class ProcessRank:
    """The rank of one of several processes, and where they meet.

    Attributes:
        rank: global rank, from 0.
        world_size: number of processes.
        local_rank: rank among the processes of this machine.
        address, port: where rank 0 listens.
        restarts: how often all processes were restarted because one was lost.
        started_by_agent: whether the parent process is torchrun's agent.
        shares_store: whether restarted processes may read the addresses of ended ones.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int
    restarts: int
    started_by_agent: bool = False
    shares_store: bool = False


def find_rank(environment: Mapping[str, str] = os.environ) -> ProcessRank | None:
    """The rank that torchrun's variables or `srun`'s give this process; None for a single process.

    Raises:
        UserError: a variable is missing or not a number.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            found = ProcessRank(
                rank=int(environment["RANK"]),
                world_size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
                restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
                started_by_agent="TORCHELASTIC_RUN_ID" in environment,
                shares_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
                and int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0,
            )
        # Not SLURM_NTASKS: a batch script has that too, although it is not one of the tasks.
        elif "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
            found = ProcessRank(
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
            f"started as one of several processes, with a missing or wrong variable: {error}",
            remedy="start with torchrun or srun, which set all of them",
        ) from error
    return found if found.world_size > 1 else None


def _first_host(environment: Mapping[str, str]) -> str:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])


def _port(job: str) -> int:
    """A port that all processes of a job compute alike and most other jobs do not."""
    return 15_000 + int(job) % 10_000
