"""`results.csv`: one row per run, as FuxiCTR's scripts write it."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tossctr.config.schema import Experiment
from tossctr.progress import say
from tossctr.redaction import redacted

FILE = "results.csv"
COLUMNS = ("time", "command", "exp_id", "dataset_id", "seed", "train", "val", "test")


def append_result(
    folder: Path, experiment: Experiment, best: Mapping[str, Any], finished: str
) -> None:
    """Add a run to `folder`'s results.csv, unless it is listed. A failure only logs a warning, as
    the run itself is complete. Links are not followed, and pipes not opened.

    Args:
        folder: where runs are kept.
        experiment: what was trained.
        best: metrics of the best validation; those of training and test rows are `N.A.`.
        finished: time of the end, which identifies the run.
    """
    names = dict.fromkeys([*experiment.training.metrics, *experiment.training.monitor])
    row = (
        finished,
        redacted(" ".join(["tossctr", *sys.argv[1:]])),
        experiment.expid,
        experiment.dataset.dataset_id,
        str(experiment.training.seed),
        "N.A.",
        " - ".join(f"{name}: {best[name]:.6f}" for name in names),
        "N.A.",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _append(folder / FILE, row)
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        say(f"{folder / FILE} was not updated: {why}")


def _append(path: Path, row: tuple[str, ...]) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "a+", encoding="utf-8", newline="") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        fcntl.flock(file, fcntl.LOCK_EX)  # two runs may end at once
        file.seek(0)
        known = [tuple(line) for line in csv.reader(file.read().splitlines())]
        if known and known[0] != COLUMNS:
            raise ValueError("is another table")
        if not any(line[:1] + line[2:] == row[:1] + row[2:] for line in known):
            file.write(_lines([row] if known else [COLUMNS, row]))


def _lines(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
