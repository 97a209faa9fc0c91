"""KuaiRand's impressions as train, valid and test files with histories and times.

    python scripts/kuairand.py KUAIRAND.tsv data/kuairand

KuaiRand (Gao et al., CIKM 2022, https://kuairand.com) logs short videos shown to the users of an
app; it is licensed CC BY-SA 4.0. The file is tab-separated and has the columns of `COLUMNS`.

Each row is an impression. Its history is all strictly earlier impressions of the same user (not
those of equal time: one request shows several videos), oldest first, with the outcome of each:
`skip`, `click` or `long_view`. The target's outcome is `unknown`, so that targets and events have
the same fields. The label is `long_view` rather than `is_click`: in an autoplay feed users choose
by staying, and its classes are nearly balanced.

The rows are split 8:1:1 by time; histories cross the splits, as in production.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tossctr.files import whole_file

Array = NDArray[Any]

COLUMNS = ["user_id", "video_id", "hourmin", "time_ms", "is_click", "long_view", "duration_ms"]
OUTCOMES = np.array(["skip", "click", "long_view"])
SPLITS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}  # shares of the rows


def read(path: Path) -> dict[str, Array]:
    """The columns as (N,) integers, sorted by user, then time."""
    table = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t"),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=COLUMNS, column_types=dict.fromkeys(COLUMNS, pa.int64())
        ),
    )
    rows = {name: table[name].to_numpy() for name in COLUMNS}
    order = np.lexsort((rows["time_ms"], rows["user_id"]))
    return {name: values[order] for name, values in rows.items()}


def features(rows: Mapping[str, Array]) -> dict[str, Array]:
    """Features and outcome of each impression.

    `duration` counts half octaves of the video's seconds (0: a picture, 8: 15 s, 12: 63 s);
    `time` is in seconds.
    """
    seconds = rows["duration_ms"] / 1000
    outcome = np.where(rows["long_view"] == 1, 2, rows["is_click"])
    return {
        "video_id": rows["video_id"],
        "duration": np.floor(2 * np.log2(1 + seconds)).astype(np.int64),
        "outcome": OUTCOMES[outcome],
        "time": rows["time_ms"] / 1000,
    }


def earlier(user: Array, time: Array) -> tuple[Array, Array]:
    """Where each row's history starts and stops, among rows sorted by user, then time.

    Returns:
        (N,) the first row of the same user, and the first that is not strictly before this one.
    """
    new_user = np.diff(user, prepend=user[0] - 1) != 0
    new_time = new_user | (np.diff(time, prepend=time[0]) != 0)
    row = np.arange(len(user))
    start = np.maximum.accumulate(np.where(new_user, row, 0))
    stop = np.maximum.accumulate(np.where(new_time, row, 0))
    return start, stop


def lists(values: Array, start: Array, stop: Array) -> pa.Array:
    """Row i is values[start[i]:stop[i]]."""
    offsets = np.concatenate([[0], np.cumsum(stop - start)])
    index = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
    return pa.LargeListArray.from_arrays(offsets, values[index])


def impressions(path: Path) -> pa.Table:
    """Every impression with its history, in order of time."""
    rows = read(path)
    event = features(rows)
    start, stop = earlier(rows["user_id"], rows["time_ms"])
    unknown = np.full(len(start), "unknown")
    columns = {
        "user_id": rows["user_id"],
        "hour": rows["hourmin"] // 100,
        **event,
        "outcome": unknown,
        **{f"hist_{name}": lists(values, start, stop) for name, values in event.items()},
        "long_view": rows["long_view"],
    }
    return pa.table(columns).take(np.argsort(rows["time_ms"], kind="stable"))


def main(source: Path, folder: Path) -> None:
    table = impressions(source)
    for name, (start, stop) in SPLITS.items():
        first, last = round(start * len(table)), round(stop * len(table))
        with whole_file(folder / f"{name}.parquet") as temporary:
            pq.write_table(table.slice(first, last - first), temporary)
        print(f"wrote {folder / name}.parquet: {last - first:,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/kuairand.py KUAIRAND.tsv FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
