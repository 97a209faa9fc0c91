"""What every benchmark here shares: arguments, the machine's description, peak memory, output."""

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


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the two flags that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--json", action="store_true", help="last line is one JSON object")
    return parser


def machine() -> str:
    """Processor, cores, memory and interpreter, on one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {gib:.0f} GiB, Python {platform.python_version()}"


def peak_mb(command: Sequence[str]) -> float:
    """Run a command to its end and return its largest resident size in MB (10**6 bytes).

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    # A small parent of its own, so that RUSAGE_CHILDREN counts this command alone.
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
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def finish(figures: Mapping[str, object], as_json: bool) -> None:
    """Print the machine and the figures; with `--json`, the last line is one JSON object."""
    print(f"machine: {machine()}")
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if as_json:
        print(json.dumps({**figures, "machine": machine()}))
