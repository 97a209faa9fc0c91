"""Predict a test file with a trained run.

python scripts/predict.py --model checkpoints/FESeq_full/model.ckpt \
    --test_data data/raw/test.parquet --output data/output/submission.csv

`--model` is a run's folder, or the name of a file in it. Paths are relative to the project's root.
"""

import sys

import project

if "-h" in sys.argv or "--help" in sys.argv:
    print(__doc__)
project.command(["predict", *sys.argv[1:]])
