"""Does preparing on two hosts give the store of one? Two network namespaces, each a Ray node.

The namespaces have a network of their own each, joined by a pair of virtual Ethernet devices; they
share this machine's disks, as hosts share a network file system. Needs a Linux that allows user
namespaces, `ip` and `nsenter`.

    hosts           nodes of the Ray cluster that did work, by address
    tasks           spans of rows handled by each
    identical       whether every file of the store is byte for byte that of one process
    lost            with --kill-one: Ray's process on the second host is killed in mid-run, and what
                    its workers had begun is done again on the first
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

from tossctr.config.schema import DatasetConfig
from tossctr.data.executor import Executor
from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_dataset

CONFIGS = Path(__file__).parents[1] / "configs"
HOSTS = ("10.9.0.1", "10.9.0.2")
PORT = 6379
FILES = 24  # of the raw folder, and so tasks of each pass


def dataset(folder: Path, root: Path) -> DatasetConfig:
    """`tossctr_full` on a folder of files."""
    full = load_dataset(CONFIGS, "tossctr_full")
    return full.model_copy(update={"train_data": folder / "raw", "data_root": root})


def make_raw(folder: Path, rows: int) -> None:
    table = pq.read_table(synthesize(folder, rows, 1).train)
    (folder / "raw").mkdir()
    for number in range(FILES):
        start, end = (rows * n // FILES for n in (number, number + 1))
        pq.write_table(table.slice(start, end - start), folder / "raw" / f"{number:04d}.parquet")


def content(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "prepare.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def witnessed(executor: Executor, hosts: Counter[str], after: Callable[[int], None]) -> Executor:
    """The same workers, counting whose host did how much; `after` sees each result's number."""

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


def on(host: int, command: list[str]) -> list[str]:
    """The command, run on that host: its network is that of a process there."""
    return command if host == 0 else ["nsenter", "-n", "-t", os.environ["OTHER_HOST"], *command]


def connect(other: int) -> None:
    """Join the network of this process with that of the other."""
    os.environ["OTHER_HOST"] = str(other)
    pair = ["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(other)]
    subprocess.run(pair, check=True)
    for host, address in enumerate(HOSTS):
        for what in (
            "link set lo up",
            f"addr add {address}/24 dev v{host}",
            f"link set v{host} up",
        ):
            subprocess.run(on(host, ["ip", *what.split()]), check=True)


def ray(*arguments: str, host: int = 0) -> None:
    command = [str(Path(sys.executable).with_name("ray")), *arguments]
    subprocess.run(on(host, command), check=True, stdout=subprocess.DEVNULL)


def start_ray(sessions: Path) -> None:
    """A node of one CPU on each host."""
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
    """Ray's process there, with which its workers end."""
    pattern = f"raylet.*node_ip_address={HOSTS[1]}"
    found = subprocess.run(["pgrep", "-f", pattern], check=True, capture_output=True, text=True)
    for pid in found.stdout.split():  # of this process's own namespace
        os.kill(int(pid), signal.SIGKILL)


def measure(folder: Path, rows: int, kill_one: bool) -> dict[str, object]:
    """On the first host."""
    from tossctr.cluster.tasks import workers
    from tossctr.data.prepare import prepare
    from tossctr.data.preparing import passes

    make_raw(folder, rows)
    alone = prepare(dataset(folder, folder / "alone"))
    passes.SPAN_ROWS = 1  # a task for each file
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
                dataset(folder, folder / "together"), executor=witnessed(executor, hosts, after)
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
        "identical": content(together.folder) == content(alone.folder),
    }


def main() -> None:
    parser = harness.arguments(str(__doc__))
    parser.add_argument("--kill-one", action="store_true", help="take the second host down")
    options = parser.parse_args()
    if "INSIDE" not in os.environ:
        inside = ["unshare", "-r", "-n", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run(
            [*inside, sys.executable, *sys.argv], env={**os.environ, "INSIDE": "1"}
        )
        sys.exit(done.returncode)
    with subprocess.Popen(["unshare", "-n", "sleep", "inf"]) as other:
        try:
            time.sleep(1)  # until it has its own network
            connect(other.pid)
            rows = 24_000 if options.quick else 120_000
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(Path(folder), rows, options.kill_one)
        finally:
            other.kill()
    harness.finish(figures, options.json)
    if not figures["identical"] or len(str(figures["hosts"]).split()) < 2:
        sys.exit("one host did all the work, or the store is another one")


if __name__ == "__main__":
    main()
