"""Does preparing on two hosts (see hosts.py) give the same store as one process? One Ray node each.

hosts           addresses of the Ray nodes that did work
tasks           spans of rows handled by each
identical       whether all files of the store are byte for byte those of one process
lost            with --kill-one: Ray's process on the second host is killed midway, and its
                unfinished tasks are repeated on the first
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import harness
import pyarrow.parquet as pq
from hosts import HOSTS, on_host, with_two_hosts
from rawdata import FILES, full_dataset, store_content, write_files

from tossctr.data.executor import Executor
from tossctr.data.synthetic import synthesize

PORT = 6379


def witnessed(executor: Executor, hosts: Counter[str], after: Callable[[int], None]) -> Executor:
    """The same workers; counts tasks per host, and calls `after` with the number of each result."""

    class Counting:
        def map(
            self, function: Callable[[Any], Any], items: Iterable[Any]
        ) -> Generator[Any, None, None]:
            def signed(item: Any) -> tuple[str, Any]:
                import ray

                return ray.util.get_node_ip_address(), function(item)

            for host, result in executor.map(signed, items):
                hosts[host] += 1
                after(sum(hosts.values()))
                yield result

    return Counting()


def ray(*arguments: str, host: int = 0) -> None:
    command = [str(Path(sys.executable).with_name("ray")), *arguments]
    subprocess.run(on_host(host, command), check=True, stdout=subprocess.DEVNULL)


def start_ray(sessions: Path) -> None:
    """Start a node with one CPU on each host."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }
    common = ["--num-cpus=1", "--object-store-memory=100000000"]
    head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={sessions}"]
    ray("start", *common, f"--node-ip-address={HOSTS[0]}", *head)
    joining = [f"--node-ip-address={HOSTS[1]}", f"--address={HOSTS[0]}:{PORT}"]
    ray("start", *common, *joining, host=1)
    os.environ["RAY_ADDRESS"] = f"{HOSTS[0]}:{PORT}"


def kill_second_host() -> None:
    """Kill Ray's process on the second host; its workers end with it."""
    pattern = f"raylet.*node_ip_address={HOSTS[1]}"
    found = subprocess.run(["pgrep", "-f", pattern], check=True, capture_output=True, text=True)
    for pid in found.stdout.split():  # the PID namespace contains no others
        os.kill(int(pid), signal.SIGKILL)


def measure(folder: Path, rows: int, kill_one: bool) -> dict[str, object]:
    """Prepare in one process and on two hosts; called on the first host."""
    from tossctr.cluster.tasks import workers
    from tossctr.data.prepare import prepare
    from tossctr.data.preparing import passes

    table = pq.read_table(synthesize(folder, rows, 1).train)
    raw = write_files(table, folder / "raw")
    alone = prepare(full_dataset(raw, folder / "alone"))
    passes.SPAN_ROWS = 1  # one task per file
    hosts: Counter[str] = Counter()

    def after(number: int) -> None:
        if kill_one and number == FILES // 2:
            kill_second_host()

    sessions = Path(tempfile.mkdtemp(prefix="ray"))  # a socket's path must be short
    try:
        start_ray(sessions)
        started = time.monotonic()
        with workers(2) as executor:
            together = prepare(
                full_dataset(raw, folder / "together"), executor=witnessed(executor, hosts, after)
            )
        seconds = time.monotonic() - started
    finally:
        ray("stop", "--force")
        shutil.rmtree(sessions, ignore_errors=True)
    return {
        "rows": rows,
        "hosts": " ".join(sorted(hosts)),
        "tasks": " ".join(str(hosts[host]) for host in sorted(hosts)),
        "lost": int(kill_one),
        "seconds": seconds,
        "identical": store_content(together.folder) == store_content(alone.folder),
    }


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--kill-one", action="store_true", help="kill Ray on the second host")
    options = parser.parse_args()
    rows = 24_000 if options.quick else 120_000
    figures = with_two_hosts(lambda folder: measure(folder, rows, options.kill_one))
    harness.finish(figures, options.json)
    if not figures["identical"] or len(str(figures["hosts"]).split()) < 2:
        sys.exit("one host did all the work, or the stores differ")


if __name__ == "__main__":
    main()
