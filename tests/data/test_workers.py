"""Preparing by workers that read spans of rows themselves, here one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from frames import FEATURES, dataset, raw_table, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.config.schema import ValidSplit
from tossctr.data.prepare import prepare
from tossctr.data.preparing import passes

TABLE = raw_table(120, seed=8)


class InTurn:
    """One worker."""

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Generator[Any, None, None]:
        yield from map(function, items)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "prepare.json"
    }


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 120), max_size=5),
    group=st.integers(7, 130),
    span=st.integers(20, 130),
    method=st.sampled_from(["time", "random", "stratified"]),
    limit=st.none() | st.integers(60, 130),
)
def test_the_store_does_not_depend_on_the_spans_of_workers(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    group: int,
    span: int,
    method: str,
    limit: int | None,
) -> None:
    root = tmp_path_factory.mktemp("some")
    (root / "raw").mkdir()
    for number, (a, b) in enumerate(pairwise([0, *sorted(cuts), 120])):
        write(TABLE.slice(a, b - a), root / "raw" / f"{number}.parquet", group)
    split = ValidSplit(method=method, fraction=0.3)  # type: ignore[arg-type]
    alone, together = (
        dataset(root / name, root / "raw", *FEATURES, valid_split=split, max_rows=limit)
        for name in ("alone", "together")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "SPAN_ROWS", span)
        done = prepare(together, executor=InTurn())
    expected = prepare(alone)
    assert content(done.folder) == content(expected.folder)
    assert done.report == expected.report


MEASURE = """
import sys
from pathlib import Path
from frames import dataset, feature
from test_workers import InTurn
from tossctr.data.prepare import prepare

data = dataset(Path(sys.argv[2]), Path(sys.argv[1]), feature("seq", "sequence", "str"))
prepare(data, executor=InTurn(), batch_rows=1000)
peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))  # of itself alone
print(int(peak.split()[1]) / 1024)
"""


def test_memory_of_workers_and_caller_does_not_grow_with_a_span(tmp_path: Path) -> None:
    # One row group, and so one span, of up to 55 MB of sequences.
    rng = np.random.default_rng(0)
    texts = np.array(
        [",".join(map(str, rng.integers(1, 585, n))) for n in rng.integers(1, 700, 997)], object
    )

    def peak(rows: int) -> float:
        table = pa.table(
            {
                "seq": pa.array(texts[rng.integers(0, 997, rows)]),
                "clicked": pa.array((np.arange(rows) % 3 == 0).astype(np.int8)),
            }
        )
        raw = tmp_path / f"{rows}.parquet"
        pa.parquet.write_table(table, raw, row_group_size=rows, use_dictionary=False)
        command = [sys.executable, "-c", MEASURE, str(raw), str(tmp_path / str(rows))]
        here = Path(__file__).parent  # where it imports from
        done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True)
        return float(done.stdout)

    # What of the shard is mapped counts, too, 28 MB; the system has it back when it likes.
    assert peak(40_000) - peak(4_000) < 25 + 28
