"""Train, evaluate or predict with an experiment.

python scripts/train.py --config configs/ --expid FESeq_toy --gpu 0 --mode train

--mode train    train the experiment (default)
--mode test     print metrics of the trained experiment
--mode predict  predict the data set's test file
--mode all      run all steps from raw files to a submission

`--gpu -1` is the CPU. Other options of the command are passed on, e.g. `--set epochs=2`. Paths
are relative to the project's root.
"""

import argparse

import project

COMMANDS = {"train": "train", "test": "evaluate", "predict": "predict", "all": "run"}

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
)
parser.add_argument("--mode", choices=COMMANDS, default="train")
chosen, rest = parser.parse_known_args()
project.command([COMMANDS[chosen.mode], *rest])
