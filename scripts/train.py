"""Train an experiment, or what follows.

python scripts/train.py --config configs/ --expid FESeq_toy --gpu 0 --mode train

--mode train    train it (the default)
--mode test     metrics of the trained experiment
--mode predict  score the data set's test file
--mode all      from raw files to a submission

`--gpu -1` is the CPU. Any other option of the command goes through, e.g. `--set epochs=2`. Paths
start at the project's root.
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
