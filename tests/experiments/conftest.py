"""Small data and trainings."""

from pathlib import Path

import pytest

from tossctr.data.synthetic import synthesize
from tossctr.families.experiment import load_experiment

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with synthetic raw files: 600 train rows, 300 test rows."""
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 600, 300, seed=3)
    return root


@pytest.fixture(scope="session")
def experiment(data):
    """`experiment(expid, *overrides)`: a training on the data in `root` that takes a second."""

    def load(expid, *overrides, root=data):
        keys = [
            f"data_root={root}",
            f"train_data={root / 'train.parquet'}",
            f"test_data={root / 'test.parquet'}",
            "sample_submission=null",
            f"model_root={root / 'runs'}",
            "valid_split.method=stratified",
            "valid_split.fraction=0.3",
            "max_len=8",
            "epochs=1",
            "num_workers=0",
        ]
        return load_experiment(CONFIGS, expid, [*keys, *overrides])

    return load
