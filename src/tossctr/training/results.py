"""`results.csv`: one row a run, for those who compare runs in a table, as FuxiCTR's scripts do."""

from __future__ import annotations

import csv
import datetime
import fcntl
import io
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tossctr.config.schema import Experiment
from tossctr.redaction import redacted

FILE = "results.csv"
COLUMNS = ("time", "command", "exp_id", "dataset_id", "seed", "train", "val", "test")


def append_result(folder: Path, experiment: Experiment, best: Mapping[str, Any]) -> None:
    """Add a run to `folder`'s results.csv.

    Args:
        folder: where runs are kept.
        experiment: what was trained.
        best: metrics at the best validation. Of training and test rows none are known: `N.A.`.
    """
    names = dict.fromkeys([*experiment.training.metrics, *experiment.training.monitor])
    row = (
        datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        redacted(" ".join(["tossctr", *sys.argv[1:]])),
        experiment.expid,
        experiment.dataset.dataset_id,
        experiment.training.seed,
        "N.A.",
        " - ".join(f"{name}: {best[name]:.6f}" for name in names),
        "N.A.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a", encoding="utf-8", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # runs may end at the same moment
        header = [] if os.fstat(file.fileno()).st_size else [COLUMNS]
        file.write(_lines([*header, row]))


def _lines(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
