"""A few of the mutated inputs of `benchmarks/fuzz.py`, which tries thousands."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_mutated_inputs_are_handled_or_refused_with_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--cases", "32", "--seed", "7"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert figures["cases"] == "32", done.stdout
    assert 6 <= int(figures["refused"]) < 32  # some are broken, some merely strange
    wrong = [figures[name] for name in ("tracebacks", "hangs", "wrong_outputs")]
    assert wrong == ["0", "0", "0"], done.stderr
