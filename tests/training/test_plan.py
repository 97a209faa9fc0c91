import json
import subprocess
import sys
from pathlib import Path

import pytest

from tossctr.errors import UserError
from tossctr.training.plan import parse_bytes

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan.py"


def test_planned_memory_is_close_to_measured_memory():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a part of a process can be read on Linux only")
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--quick", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["worst_error"] <= 0.15


@pytest.mark.parametrize(
    ("text", "size"), [("14GB", 14e9), ("1.5 GiB", 1.5 * 2**30), ("300 MB", 3e8), ("7", 7)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "14X", "-3GB", "1.2.3MB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match="14GB"):
        parse_bytes(text)
