"""Two hosts (network namespaces) train together; one process is killed and training resumes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "two_hosts_train.py"
NAMESPACES = ["unshare", "-r", "-n", "--pid", "--fork", "--kill-child", "--mount-proc"]
LINK = ["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]


def test_two_hosts_with_a_killed_process_train_like_one_process():
    if not all(shutil.which(name) for name in ("unshare", "nsenter", "ip", "pgrep")):
        pytest.skip("needs unshare, nsenter, ip and pgrep")
    if subprocess.run([*NAMESPACES, *LINK], capture_output=True).returncode:
        pytest.skip("this machine does not allow network namespaces")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["restarts"] == 1
    assert figures["resumed_at_step"] >= 1
    assert figures["identical"] == 1
