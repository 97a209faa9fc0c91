"""Optimisations of speed and memory do not change the quality of training."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "quality.py"


def test_optimisations_do_not_change_quality():
    # Without dropout, whose draws differ, nothing but rounding does.
    command = [sys.executable, BENCHMARK, "--quick", "--json", "--set", "net_dropout=0"]
    command += ["--set", "batch_size=100"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["as_it_is_std"] > 1e-4
    assert figures["recomputed_difference"] == 0
    assert abs(figures["plain_batches_difference"]) < 1e-4
    assert abs(figures["plain_modules_difference"]) < 1e-4
    assert 0 < abs(figures["bf16_difference"]) < 0.02
    assert len(figures["sampled_curve"]) == 4 * len(figures["as_it_is_curve"])
    assert figures["sampled_steps"] <= 4 * figures["as_it_is_steps"]
