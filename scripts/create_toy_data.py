"""Toy data: the first rows of the raw files, or synthetic ones if there are none.

python scripts/create_toy_data.py

Writes into data/toy:
    train_toy.csv                      1,000 rows for inspection
    train.parquet, test.parquet,       the files of the data set tossctr_toy,
    sample_submission.csv              up to 60,000 and 6,000 rows
"""

import argparse
from pathlib import Path

import project
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tossctr.commands.scoring import SYNTH_TRAIN_ROWS
from tossctr.data import schema
from tossctr.data.sources.opening import open_source
from tossctr.data.synthetic import synthesize
from tossctr.files import whole_file
from tossctr.progress import say

TRAIN_ROWS, TEST_ROWS = SYNTH_TRAIN_ROWS, SYNTH_TRAIN_ROWS // 10
RAW, TOY = Path("data/raw"), Path("data/toy")
CSV_ROWS = 1_000


def first_rows(path: Path, rows: int) -> pa.Table:
    """The first rows of a raw file, as a table."""
    return pa.Table.from_batches(list(open_source(path).batches(stop=rows)))


def cut_raw() -> None:
    """Toy files from the raw ones."""
    (TOY / "truth.parquet").unlink(missing_ok=True)  # of earlier synthetic files
    for name, rows in (("train", TRAIN_ROWS), ("test", TEST_ROWS)):
        table = first_rows(RAW / f"{name}.parquet", rows)
        with whole_file(TOY / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary)
    sample = pa.table([table[schema.ID], pa.repeat(0, len(table))], schema.SUBMISSION_SCHEMA)
    with whole_file(TOY / "sample_submission.csv") as temporary:
        plain = pyarrow.csv.WriteOptions(quoting_header="none", quoting_style="none")
        pyarrow.csv.write_csv(sample, temporary, plain)


argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
).parse_args()
with project.one_line_errors():
    if (RAW / "train.parquet").exists():
        cut_raw()
    else:
        say(f"no raw files in {RAW}: making synthetic ones")
        synthesize(TOY, TRAIN_ROWS, TEST_ROWS)
    csv = first_rows(TOY / "train.parquet", CSV_ROWS)
    with whole_file(TOY / "train_toy.csv") as temporary:
        pyarrow.csv.write_csv(csv, temporary)
    say(f"wrote {TOY / 'train_toy.csv'} ({len(csv):,} rows) and the files of tossctr_toy")
