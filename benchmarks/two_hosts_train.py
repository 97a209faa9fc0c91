"""Does a training on two hosts (see hosts.py) with a killed process end like one process?

Each host runs torchrun, with gloo between them. After the first checkpoint the process on the
second host is killed (SIGKILL); both agents restart theirs, and training resumes from the
checkpoint. The result is compared with the same training in one process, with SGD and without
dropout, as Adam turns rounding errors into steps.

    restarts          number of restarts of all processes
    resumed_at_step   step of the checkpoint that training resumed from; 0 if it did not
    weight_error      largest difference of a weight to that of one process
    metric_error      largest difference of a validation metric
    rows              rows of all optimiser steps, those repeated after the checkpoint counted once
    identical         1 if rows are equal and both errors are below 1e-4
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
from hosts import HOSTS, on_host, with_two_hosts
from safetensors.torch import load_file

from tossctr.cluster.rank import OWN_STORE
from tossctr.data.synthetic import synthesize

EXPID = "FESeq_toy"
SETTINGS = {
    "max_len": 16,
    "batch_size": 256,
    "epochs": 2,
    "optimizer": "sgd",
    "net_dropout": 0,
    "num_workers": 0,
    "checkpoint_minutes": 0.001,
    "valid_split.method": "stratified",
}


def command(folder: Path, runs: str) -> list[str]:
    """`tossctr train` in the folder's project."""
    overrides = harness.overrides({**SETTINGS, "model_root": runs})
    train = ["tossctr", "train", "--config", f"{folder / 'configs'}", "--expid", EXPID]
    return [*train, "--gpu", "-1", *overrides]


def start(host: int, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """torchrun's agent on a host, with one process."""
    agent = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        "--max-restarts=3", "--rdzv-backend=c10d", f"--rdzv-endpoint={HOSTS[0]}:29400",
        f"--rdzv-conf=is_host={int(host == 0)}", f"--local-addr={HOSTS[host]}",
        "--rdzv-id=two", "-m",
    ]  # fmt: skip
    env = {**os.environ, OWN_STORE: "1", "GLOO_SOCKET_IFNAME": f"v{host}"}
    with log.open("wb") as file:
        return subprocess.Popen(
            on_host(host, [*agent, *command(folder, "two")]), env=env, stdout=file, stderr=file
        )


def wait_for_checkpoint(folder: Path, agents: list[subprocess.Popen[bytes]]) -> None:
    while not list(folder.glob(f"two/{EXPID}.partial/checkpoints/step-*")):
        time.sleep(0.05)
        if any(agent.poll() is not None for agent in agents):
            raise SystemExit(f"a host ended before the first checkpoint:\n{logs_of(folder)}")


def logs_of(folder: Path) -> str:
    """The logs of both hosts; torchrun chooses which of them has rank 0."""
    return "".join(log.read_text() for log in sorted(folder.glob("*.log")))


def measure(folder: Path, rows: int) -> dict[str, object]:
    """Train in one process and on two hosts; called on the first host."""
    shutil.copytree(harness.CONFIGS, folder / "configs")
    synthesize(folder / "data" / "toy", rows, 1, seed=5)
    subprocess.run([sys.executable, "-m", *command(folder, "one")], check=True)
    started = time.monotonic()
    agents = [start(host, folder, folder / f"{host}.log") for host in range(len(HOSTS))]
    wait_for_checkpoint(folder, agents)
    child = subprocess.run(["pgrep", "-P", f"{agents[1].pid}"], stdout=subprocess.PIPE, check=True)
    os.kill(int(child.stdout), signal.SIGKILL)
    codes = [agent.wait() for agent in agents]
    if any(codes):
        raise SystemExit(f"the hosts ended with {codes}:\n{logs_of(folder)}")
    resumed = re.findall(r"resuming from epoch \d+, step ([\d,]+)", logs_of(folder))
    one, two = (folder / runs / EXPID for runs in ("one", "two"))
    weights, expected = (load_file(run / "model.safetensors") for run in (two, one))
    metrics, of_one = (json.loads((run / "metrics.json").read_text()) for run in (two, one))
    weight_error = max(float((weights[k] - expected[k]).abs().max()) for k in expected)
    metric_error = max(_differences(metrics["history"], of_one["history"]))
    same = metrics["trained_rows"] == of_one["trained_rows"]
    return {
        "restarts": len(resumed),
        "resumed_at_step": int(resumed[-1].replace(",", "")) if resumed else 0,
        "weight_error": weight_error,
        "metric_error": metric_error,
        "rows": metrics["trained_rows"],
        "seconds": time.monotonic() - started,
        "identical": int(same and weight_error < 1e-4 and metric_error < 1e-4),
    }


def _differences(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[float]:
    pairs = zip(rows, others, strict=True)
    return [abs(row[name] - other[name]) for row, other in pairs for name in row]


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = 1_500 if options.quick else options.rows
    figures = with_two_hosts(lambda folder: measure(folder, rows))
    harness.finish(figures, options.json)
    if not figures["identical"] or not figures["restarts"]:
        sys.exit("the trainings differ, or no process was restarted")


if __name__ == "__main__":
    main()
