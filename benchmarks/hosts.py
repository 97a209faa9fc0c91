"""Two hosts on one machine: two network namespaces, joined by virtual Ethernet devices.

Both share this machine's disks, as hosts share a network file system. Needs a Linux that allows
user namespaces, `ip` and `nsenter`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HOSTS = ("10.9.0.1", "10.9.0.2")


def with_two_hosts(measure: Callable[[Path], dict[str, object]]) -> dict[str, object]:
    """Call `measure` with a temporary folder, on the first of two connected hosts.

    This script is started again in a user namespace, and the calling process exits with its code.
    """
    if "INSIDE" not in os.environ:
        inside = ["unshare", "-r", "-n", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*inside, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, "INSIDE": "1"}).returncode)
    with subprocess.Popen(["unshare", "-n", "sleep", "inf"]) as other:
        try:
            time.sleep(1)  # until it has its own network
            _connect(other.pid)
            with tempfile.TemporaryDirectory() as folder:
                return measure(Path(folder))
        finally:
            other.kill()


def on_host(host: int, command: list[str]) -> list[str]:
    """The command line that runs a command on host 0 or 1."""
    return command if host == 0 else ["nsenter", "-n", "-t", os.environ["OTHER_HOST"], *command]


def _connect(other: int) -> None:
    """Connect this process's network namespace with that of process `other`."""
    os.environ["OTHER_HOST"] = str(other)
    pair = ["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(other)]
    subprocess.run(pair, check=True)
    for host, address in enumerate(HOSTS):
        for words in (
            "link set lo up",
            f"addr add {address}/24 dev v{host}",
            f"link set v{host} up",
        ):
            subprocess.run(on_host(host, ["ip", *words.split()]), check=True)
