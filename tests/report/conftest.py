"""Two small runs on the same synthetic data."""

import shutil
from pathlib import Path

import pytest
import torch

from tossctr.config.loader import load_experiment
from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.training.trainer import train

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["epochs=2", "batch_size=256", "max_len=16", "valid_split.fraction=0.3", "num_workers=0"]


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project folder with configs and raw files; nothing is trained."""
    root = tmp_path_factory.mktemp("report")
    shutil.copytree(CONFIGS, root / "configs")
    synthesize(root / "data" / "toy", 2_500, 300, seed=3)
    return root


@pytest.fixture(scope="session")
def runs(project):
    """A FESeq and a DCNv2."""
    found = []
    for expid in ("FESeq_toy", "DCNv2_toy"):
        experiment = load_experiment(project / "configs", expid, SMALL)
        data = prepare(experiment.dataset)
        folder = project / "checkpoints" / expid
        found.append(train(experiment, data, torch.device("cpu"), folder))
    return found
