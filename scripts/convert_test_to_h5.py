"""The test file as H5, with the vocabulary of an experiment's data set.

python scripts/convert_test_to_h5.py --expid FESeq_full --output data/full/test_full.h5

The file contains the hash of that vocabulary, and only runs with the same vocabulary accept it:
FESeq_full refuses one made for FESeq_toy.
"""

import argparse
from pathlib import Path

import project

from tossctr.data.prepare import prepare
from tossctr.families.experiment import load_experiment
from tossctr.interop.fuxictr_export import Export
from tossctr.progress import say

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--config", type=Path, default="configs")
parser.add_argument("--expid", default="FESeq_toy", help="default: %(default)s")
parser.add_argument("--test_data", type=Path, default="data/raw/test.parquet")
parser.add_argument("--output", type=Path, default="data/toy/test_full.h5")
chosen = parser.parse_args()
with project.one_line_errors():
    experiment = load_experiment(chosen.config, chosen.expid)
    dataset = experiment.dataset
    written = Export.of(prepare(dataset), dataset, experiment.training.max_len)
    rows = written.write_raw(chosen.test_data, chosen.output)
    say(f"wrote {chosen.output} ({rows:,} rows) with the vocabulary of {dataset.dataset_id}")
