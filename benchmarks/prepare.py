"""Speed, memory and disk space of `tossctr prepare` on synthetic data in the Toss layout.

All of `prepare` is measured: hash the raw file, read it twice, fit, transform, write, hash and sync
the store, for the 5 categorical and 75 numeric features and the sequence of `tossctr_full`.

    rows_per_s      rows of the file per second of wall-clock time (on all cores)
    ratio           rows_per_s relative to a bare loop (on one core) of
                    np.fromstring(text, sep=",", dtype=np.int64) over the same sequences in memory;
                    the median of rounds before and after `prepare`. With np.fromstring's default
                    type, float, the loop is several times slower.
    peak_mb         peak resident memory of a process that prepares all rows
    memory_growth   peak_mb relative to preparing a fifth of the rows, minus 1
    store_overhead  bytes of all files of the data set's folder relative to the bytes that the
                    values need, minus 1. Needed are 4 bytes per number and label, the smallest
                    unsigned type that holds the vocabulary per category and event, and 8 bytes per
                    row for the offsets of the sequence.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
from rawdata import full_dataset

from tossctr.data import schema
from tossctr.data.prepare import Prepared, prepare
from tossctr.data.rows import EncodedRows
from tossctr.data.sources.opening import open_source
from tossctr.data.synthetic import synthesize

LOOP_ROWS = 20_000


def loop_rows_per_s(texts: list[str]) -> float:
    start = time.perf_counter()
    for text in texts:
        np.fromstring(text, sep=",", dtype=np.int64)
    return len(texts) / (time.perf_counter() - start)


def bytes_needed(rows: EncodedRows) -> int:
    """Bytes that the values need, given the vocabulary sizes."""
    features, n = rows.features, len(rows)
    events = sum(
        len(ragged.values) * width(features[name].vocab_size)
        for name, ragged in rows.sequences.items()
    )
    categories = sum(width(features[name].vocab_size) for name in features.names("categorical"))
    return events + n * (8 * len(rows.sequences) + categories + 4 * rows.numeric.shape[1] + 4)


def width(vocab_size: int | None) -> int:
    assert vocab_size is not None
    return 1 if vocab_size <= 2**8 else 2 if vocab_size <= 2**16 else 4


def folder_bytes(done: Prepared) -> int:
    return sum(path.stat().st_size for path in done.folder.rglob("*") if path.is_file())


def measure(rows: int, folder: Path) -> dict[str, object]:
    raw = synthesize(folder, rows, 1).train
    first = next(open_source(raw).batches([schema.SEQUENCE], stop=LOOP_ROWS, batch_rows=LOOP_ROWS))
    texts = first.column(0).to_pylist()
    prepare(full_dataset(raw, folder / "warm", max_rows=5000))  # compiles the Numba functions

    loops = [loop_rows_per_s(texts) for _ in range(3)]
    start = time.perf_counter()
    done = prepare(full_dataset(raw, folder / "timed", max_rows=rows))
    rows_per_s = rows / (time.perf_counter() - start)
    loops += [loop_rows_per_s(texts) for _ in range(3)]

    fifth, whole = (
        harness.peak_mb(
            [sys.executable, __file__, "--only-prepare", str(raw), str(folder / str(n)), str(n)]
        )
        for n in (rows // 5, rows)
    )
    needed = bytes_needed(done.train) + bytes_needed(done.valid)
    return {
        "rows": rows,
        "rows_per_s": rows_per_s,
        "loop_rows_per_s": float(np.median(loops)),
        "ratio": rows_per_s / float(np.median(loops)),
        "peak_mb": whole,
        "peak_mb_fifth": fifth,
        "memory_growth": whole / fifth - 1,
        "store_overhead": folder_bytes(done) / needed - 1,
    }


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--only-prepare", nargs=3, metavar=("RAW", "ROOT", "ROWS"))
    options = parser.parse_args()
    if options.only_prepare:
        raw, root, rows = options.only_prepare
        prepare(full_dataset(Path(raw), Path(root), max_rows=int(rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(200_000 if options.quick else 1_000_000, Path(folder))
    harness.finish(figures, options.json)


if __name__ == "__main__":
    main()
