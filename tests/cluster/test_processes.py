"""Reductions and broadcasts between processes; an error of one is reported once and ends all."""

import math
import os

import pytest
import torch
from together import together

from tossctr.cluster.errors import ErrorElsewhere, PeerLost
from tossctr.cluster.processes import ALONE
from tossctr.cluster.rank import find_rank
from tossctr.errors import UserError


def everything(processes):
    rank = processes.rank
    tensor = torch.full((3,), float(rank + 1))
    processes.sum_(tensor)
    # One process has nothing to give.
    own = torch.arange(2 * rank, dtype=torch.float64).reshape(rank, 2)
    gathered = processes.gather(own)
    made = processes.first_then(lambda: f"made by {rank}", others=lambda: f"opened by {rank}")
    return {
        "sum": tensor.tolist(),
        "gathered": None if gathered is None else gathered.tolist(),
        "largest": processes.largest([rank, 10 - rank]),
        "told": processes.broadcast({"rank": rank, "nan": math.nan, "none": None}),
        "all": processes.all_gather([rank] * rank),
        "made": made,
    }


def test_reductions_gathers_and_broadcasts_match_on_all_processes():
    found = together(3, everything)
    assert [each["sum"] for each in found] == [[6.0] * 3] * 3
    assert [each["gathered"] for each in found] == [
        [[0.0, 1.0], [0.0, 1.0], [2.0, 3.0]],
        None,
        None,
    ]
    assert all(each["largest"] == [2, 10] for each in found)
    assert all(each["told"]["rank"] == 0 and math.isnan(each["told"]["nan"]) for each in found)
    assert all(each["all"] == [[], [1], [2, 2]] for each in found)
    assert [each["made"] for each in found] == ["made by 0", "opened by 1", "opened by 2"]
    assert everything(ALONE)["gathered"] == []


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_process_ends_all_and_is_reported_once(failing):
    def work(processes):
        def may_fail():
            if processes.rank == failing:
                raise UserError("no such thing", file="x.parquet")

        processes.everywhere(may_fail)

    first, *others = together(3, work)
    assert type(first) is UserError
    assert "x.parquet: no such thing" in first.line()
    assert all(type(error) is ErrorElsewhere for error in others)


def test_a_process_that_ends_is_missed_by_the_others(capfd):
    def work(processes):
        if processes.rank == 1:
            os._exit(9)
        processes.all_gather("still here")

    first, lost, last = together(3, work)
    assert lost is None
    assert isinstance(first, PeerLost)
    assert isinstance(last, PeerLost)


TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "1234567",
}


def test_the_place_is_found_in_the_environment():
    process = find_rank(TORCHRUN)
    assert (process.rank, process.world_size, process.local_rank, process.restarts) == (3, 4, 1, 2)
    assert (process.address, process.port) == ("10.0.0.1", 29500)
    process = find_rank(SRUN)
    assert (process.rank, process.world_size, process.local_rank) == (3, 4, 1)
    assert (process.address, process.port) == ("node07", 19567)
    assert find_rank({**SRUN, **TORCHRUN}).address == "10.0.0.1"  # torchrun started by srun


def test_a_single_process_has_no_rank():
    assert find_rank({}) is None
    assert find_rank({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    # The script of a SLURM job is none of its tasks, though it knows their number.
    assert find_rank({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}) is None


@pytest.mark.parametrize("change", [{"MASTER_PORT": "x"}, {"LOCAL_RANK": ""}])
def test_a_wrong_variable_is_one_line(change):
    with pytest.raises(UserError, match="started as one of several"):
        find_rank({**TORCHRUN, **change})
