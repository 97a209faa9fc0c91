"""The medium data set as H5 files.

python scripts/convert_medium_data_to_h5.py

Writes data/tossctr_medium/train.h5 and valid.h5 (up to 450,000 and 50,000 rows), feature_map.json
and feature_vocab.json. Vocabularies are those of the medium data set, fit again whenever the raw
file or the config has changed; each H5 file contains their hash.
"""

import argparse
from pathlib import Path

import project

from tossctr.data.prepare import prepare
from tossctr.families.experiment import load_dataset
from tossctr.interop.formats import Format
from tossctr.interop.fuxictr_export import export
from tossctr.progress import say

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--config", type=Path, default="configs")
chosen = parser.parse_args()
with project.one_line_errors():
    dataset = load_dataset(chosen.config, "tossctr_medium")
    data = prepare(dataset)
    rows = export(data, dataset, data.folder, Format.H5, splits=("train", "valid"))
    for split, count in rows.items():
        say(f"wrote {data.folder / split}.h5 ({count:,} rows)")
