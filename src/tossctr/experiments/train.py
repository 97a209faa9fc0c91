"""Train an experiment in folds; train a recipe: the folds of several experiments, blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import FoldMethod
from tossctr.config.schema import Experiment
from tossctr.data.prepare import prepare
from tossctr.experiments.blend import blend
from tossctr.experiments.folds import train_folds
from tossctr.experiments.predictors import folds_of, load_blend
from tossctr.experiments.recipe import Recipe
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predictor import Predictor
from tossctr.pipeline.train import run_folder
from tossctr.progress import say
from tossctr.runs.checks import check_model


def train_in_folds(
    experiment: Experiment,
    device: torch.device,
    *,
    folds: int,
    method: FoldMethod,
    seeds: Sequence[int],
    fresh: bool = False,
) -> Predictor:
    """Prepare the data if needed, and train in folds into `<run_folder>.folds`."""
    check_model(experiment)
    data = prepare(experiment.dataset)
    folder = folds_of(run_folder(experiment))
    predictor = train_folds(
        experiment, data, device, folder, folds=folds, method=method, seeds=seeds, fresh=fresh
    )
    calibrator_of(predictor, predictor.objective, device)
    return predictor


def train_recipe(recipe: Recipe, device: torch.device, *, fresh: bool = False) -> Predictor:
    """Train a recipe's experiments in folds, and blend them into `<model_root>/<recipe>`.

    After an interruption, finished folds are reused and the unfinished one resumes.

    Raises:
        UserError: as `train_in_folds` and `blend`.
    """
    for experiment in recipe.experiments:  # all, before the first is trained
        check_model(experiment)
    members: dict[str, Predictor] = {
        experiment.expid: train_in_folds(
            experiment,
            device,
            folds=recipe.folds,
            method=recipe.fold_method,
            seeds=recipe.seeds,
            fresh=fresh,
        )
        for experiment in recipe.experiments
    }
    folder = recipe.experiments[0].training.model_root / recipe.name
    result = blend(members, folder, device)
    metric = AIMS[result.objective].metric
    gain = result.gain[metric]
    say(
        f"{recipe.name}: {result.combination.method} of {', '.join(members)}, "
        f"{metric} {gain.mean:+.6f} ± {gain.std:.6f} compared with {result.best_single}"
    )
    predictor = load_blend(folder)
    calibrator_of(predictor, predictor.objective, device)
    return predictor
