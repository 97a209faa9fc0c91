"""A few of the kills and refused writes of `benchmarks/faults.py`, which does many."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "faults.py"


def test_killed_commands_end_as_if_they_had_not_been(tmp_path):
    counts = ["--kills", "3", "--write-failures", "1", "--rows", "900"]
    done = subprocess.run(
        [sys.executable, BENCHMARK, *counts], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert int(figures["kills"]) >= 3, done.stdout
    assert int(figures["write_failures"]) >= 1
    assert figures["identical"] == "1", done.stderr
    assert figures["tracebacks"] == "0"
