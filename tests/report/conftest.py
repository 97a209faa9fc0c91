"""Two small runs on the same synthetic data."""

import shutil
from pathlib import Path

import pytest
import torch

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.experiments.blend import blend
from tossctr.experiments.folds import train_folds
from tossctr.experiments.predictors import folds_of, load_predictor
from tossctr.families.experiment import load_experiment
from tossctr.report.collect import collect
from tossctr.runs.train import train

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["epochs=2", "batch_size=256", "max_len=16", "valid_split.fraction=0.3", "num_workers=0"]
TREES = ["num_boost_round=30", "min_data_in_leaf=20", "valid_split.fraction=0.3"]


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
    return [trained(project, expid, *SMALL) for expid in ("FESeq_toy", "DCNv2_toy")]


@pytest.fixture(scope="session")
def reports(runs):
    """Of both."""
    return [collect(run, run.folder.name, CPU) for run in runs]


@pytest.fixture(scope="session")
def trees(project):
    """A LightGBM."""
    return trained(project, "LightGBM_toy", *TREES)


@pytest.fixture(scope="session")
def folds(project, runs, trees):
    """Two folds of a LightGBM with two seeds, and of a DCNv2."""
    return [
        train_folds(
            run.experiment, prepare(run.experiment.dataset), CPU, folds_of(run.folder),
            folds=2, seeds=seeds,
        )
        for run, seeds in ((trees, [1, 2]), (runs[1], [1]))
    ]  # fmt: skip


@pytest.fixture(scope="session")
def blended(project, folds):
    """Both."""
    folder = project / "checkpoints" / "blend"
    blend(dict(zip(("trees", "cross"), folds, strict=True)), folder, CPU)
    return load_predictor(folder)


def trained(project, expid, *overrides):
    experiment = load_experiment(project / "configs", expid, overrides)
    data = prepare(experiment.dataset)
    return train(experiment, data, CPU, project / "checkpoints" / expid)
