"""Kills every command at each of its points, repeats it, and compares results: see `faults.py`."""

from __future__ import annotations

import importlib
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from fault_cases import CASES, USERS, Case, Project, contents

IMPORTED = (  # imported before forking, to save time
    "lightgbm", "lightning", "optuna", "sqlalchemy", "tossctr.pipeline.submit",
    "tossctr.pipeline.train",
    "tossctr.report.page", "tossctr.interop.fuxictr_export", "tossctr.runs.train",
    "tossctr.tuning.study",
)  # fmt: skip


def sweep(commands: Sequence[str], *, stride: int = 1, limit: int | None = None) -> dict[str, int]:
    """Kill at each `stride`-th point of these commands, at most at `limit` points of each.

    Returns:
        Number of `points`; of those with results `identical` to an uninterrupted command; of those
        at which a user's file or an earlier result was `lost`; of `tracebacks`.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    torch.set_num_threads(1)
    counts = {"points": 0, "identical": 0, "lost": 0, "tracebacks": 0}
    with tempfile.TemporaryDirectory() as home:
        project = Project(Path(home).resolve())
        for name in commands:
            before = dict(counts)
            _sweep_case(project, name, CASES[name], stride, limit, counts)
            said = ", ".join(f"{counts[key] - before[key]} {key}" for key in counts)
            print(f"{name}: {said}", file=sys.stderr, flush=True)
    return counts


def _sweep_case(
    project: Project,
    name: str,
    case: Case,
    stride: int,
    limit: int | None,
    counts: dict[str, int],
) -> None:
    project.put(case.before)
    before = contents(project.root)
    code, points = project.run(case.command)
    if code != 0:
        raise SystemExit(f"{name} failed without a kill:\n{project.said}")
    expected = contents(project.root)
    gone = [user for user in USERS if expected.get(user) != before[user]]
    if gone:
        raise SystemExit(f"{name} replaces the user's files even without a kill: {gone}")
    for number in islice(range(1, len(points) + 1, stride), limit):
        project.put(case.before)
        counts["points"] += 1
        code, _ = project.run(case.command, kill_at=number)
        where = f"{name}, point {number} of {len(points)}, {points[number - 1]}"
        if code != -signal.SIGKILL:
            print(f"{where}: not reached (exit code {code}):\n{project.said}", file=sys.stderr)
            continue
        lost = _lost(before, contents(project.root), expected)
        code, _ = project.run(case.command)
        counts["tracebacks"] += "Traceback" in project.said
        after = contents(project.root)
        others = sorted(
            n for n in after.keys() | expected.keys() if after.get(n) != expected.get(n)
        )
        identical = code == 0 and not others
        counts["identical"] += identical
        counts["lost"] += bool(lost)
        if lost:
            print(f"{where}: lost {_some(lost)}", file=sys.stderr)
        if not identical:
            said = " | ".join(project.said.splitlines()[-3:])
            print(
                f"{where}: ended with another result, exit code {code}, {_some(others)}: {said}",
                file=sys.stderr,
            )


def _lost(
    before: Mapping[str, str], after: Mapping[str, str], expected: Mapping[str, str]
) -> list[str]:
    """Files of which neither the content before the kill nor the new content exists now."""
    if expected.items() <= after.items():
        return []
    kept = set(after.values())
    return [
        name
        for name, content in before.items()
        if content not in kept and (name not in expected or after.get(name) != expected[name])
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
