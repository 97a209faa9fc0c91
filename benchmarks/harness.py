"""The parts that all benchmarks share: arguments, `tossctr` commands, peak memory, output."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
TOSSCTR = (sys.executable, "-m", "tossctr")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the two flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser


def overrides(keys: Mapping[str, object]) -> list[str]:
    """`--set key=value` for each key."""
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


def machine() -> str:
    """Processor, cores, memory and Python version, on one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {gib:.0f} GiB, Python {platform.python_version()}"


def peak_mb(command: Sequence[str]) -> float:
    """Run a command and return its peak resident memory in MB (10**6 bytes).

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    # In a small parent process, so that RUSAGE_CHILDREN counts only this command.
    probe = (
        "import resource,subprocess,sys;"
        "code=subprocess.run(sys.argv[1:],stdout=sys.stderr).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def own_peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def finish(figures: Mapping[str, object], as_json: bool) -> None:
    """Print the machine and the figures; with `--json`, the last line is one JSON object."""
    print(f"machine: {machine()}")
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if as_json:
        print(json.dumps({**figures, "machine": machine()}))
