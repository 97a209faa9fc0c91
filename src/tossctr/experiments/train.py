"""An experiment trained in folds, and a recipe: several of them, blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import FoldMethod
from tossctr.config.schema import Experiment
from tossctr.data.prepare import prepare
from tossctr.experiments.blend import blend
from tossctr.experiments.folds import folds_of, train_folds
from tossctr.experiments.opening import load_blend
from tossctr.experiments.recipe import Recipe
from tossctr.inference.held_out import calibrator as fit_calibrator
from tossctr.inference.predictor import Scorer
from tossctr.pipeline.train import run_folder
from tossctr.progress import say
from tossctr.runs.checks import check_model
from tossctr.runs.run_folder import Run


def train_in_folds(
    experiment: Experiment,
    device: torch.device,
    *,
    folds: int,
    method: FoldMethod,
    seeds: Sequence[int],
    fresh: bool = False,
) -> Scorer:
    """Prepare what is needed, and train in folds into `<run_folder>.folds`."""
    check_model(experiment)
    data = prepare(experiment.dataset)
    folder = folds_of(run_folder(experiment))
    scorer = train_folds(
        experiment, data, device, folder, folds=folds, method=method, seeds=seeds, fresh=fresh
    )
    fit_calibrator(scorer, scorer.objective, device)
    return scorer


def train_recipe(recipe: Recipe, device: torch.device, *, fresh: bool = False) -> Scorer:
    """Train a recipe's experiments in folds, and blend them into `<model_root>/<recipe>`.

    Resumes an interrupted call: finished folds are kept, a half-trained one resumes.

    Raises:
        UserError: as `train_in_folds` and `blend`.
    """
    for experiment in recipe.experiments:  # what is wrong with the last is said before the first
        check_model(experiment)
    members: dict[str, Run | Scorer] = {
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
        f"{metric} {gain.mean:+.6f} ± {gain.std:.6f} against {result.best_single}"
    )
    scorer = load_blend(folder)
    fit_calibrator(scorer, scorer.objective, device)
    return scorer
