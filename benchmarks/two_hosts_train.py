"""Does a training across two hosts, one of whose processes is killed, end as that of one process?

Two network namespaces joined by virtual Ethernet devices (see two_hosts_prepare.py), torchrun on
each, gloo between them. Once a checkpoint is there, the process on the second host is killed
(SIGKILL); both agents start theirs again, and the training goes on from the checkpoint. It is
compared with the same training by one process, without dropout and by plain SGD, as Adam makes
steps of rounding errors.

    restarts          times that all processes were started again
    resumed_at_step   of the checkpoint that they went on from; 0 if they did not
    weight_error      largest difference of a weight to that of one process
    metric_error      largest difference of a validation metric
    rows              rows that went into optimiser steps, after the last checkpoint counted once
    identical         1 if rows are those of one process and both errors are below 1e-4
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from safetensors.torch import load_file
from two_hosts_prepare import CONFIGS, HOSTS, connect, on

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
    keys = {**SETTINGS, "model_root": runs}
    overrides = [word for k, v in keys.items() for word in ("--set", f"{k}={v}")]
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
            on(host, [*agent, *command(folder, "two")]), env=env, stdout=file, stderr=file
        )


def wait_for_checkpoint(folder: Path, agents: list[subprocess.Popen[bytes]]) -> None:
    while not list(folder.glob(f"two/{EXPID}.partial/checkpoints/step-*")):
        time.sleep(0.05)
        if any(agent.poll() is not None for agent in agents):
            raise SystemExit(f"a host ended before there was a checkpoint:\n{said(folder)}")


def said(folder: Path) -> str:
    """By both hosts; which of them has the first process is torchrun's choice."""
    return "".join(log.read_text() for log in sorted(folder.glob("*.log")))


def measure(folder: Path, rows: int) -> dict[str, object]:
    """On the first host."""
    shutil.copytree(CONFIGS, folder / "configs")
    synthesize(folder / "data" / "toy", rows, 1, seed=5)
    subprocess.run([sys.executable, "-m", *command(folder, "one")], check=True)
    started = time.monotonic()
    agents = [start(host, folder, folder / f"{host}.log") for host in range(len(HOSTS))]
    wait_for_checkpoint(folder, agents)
    child = subprocess.run(["pgrep", "-P", f"{agents[1].pid}"], stdout=subprocess.PIPE, check=True)
    os.kill(int(child.stdout), signal.SIGKILL)
    codes = [agent.wait() for agent in agents]
    if any(codes):
        raise SystemExit(f"the hosts ended with {codes}:\n{said(folder)}")
    resumed = re.findall(r"resuming from epoch \d+, step ([\d,]+)", said(folder))
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
    parser = harness.arguments(str(__doc__))
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    if "INSIDE" not in os.environ:
        inside = ["unshare", "-r", "-n", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run(
            [*inside, sys.executable, *sys.argv], env={**os.environ, "INSIDE": "1"}
        )
        sys.exit(done.returncode)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with subprocess.Popen(["unshare", "-n", "sleep", "inf"]) as other:
        try:
            time.sleep(1)  # until it has its own network
            connect(other.pid)
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(Path(folder), 1_500 if options.quick else options.rows)
        finally:
            other.kill()
    harness.finish(figures, options.json)
    if not figures["identical"] or not figures["restarts"]:
        sys.exit("not the training of one process, or none was killed")


if __name__ == "__main__":
    main()
