"""What are blending and calibration worth? Synthetic data with known click probabilities.

For each seed, on new rows: trains every model in folds, blends the models by their out-of-fold
predictions, calibrates to the competition score, and scores a test file. Scores are in expectation
over the test file's clicks (see expectation.py: one draw of 2,000 clicks adds more noise than a
blend gains), means over seeds:

    singles               folds of each model, raw and calibrated
    best_single           the model with the best out-of-fold score, raw; `best_single_calibrated`
    blend                 the raw blend, at the natural prior
    calibrated            the calibrated blend, which is submitted
    gain, gain_calibrated calibrated minus best_single and best_single_calibrated; `_std` over seeds
    ceiling               the true probabilities at the balanced prior
    share                 calibrated / ceiling; share_above_chance subtracts the score of chance
    wll_error             WLL of calibrated / WLL of ceiling - 1: errors of model and calibration
    calibration_wll_error the same for distorted true probabilities (scaled, shifted and bent, in
                          the same order) after calibration: the error of calibration alone; the
                          largest over seeds
    ap_change             largest change of the AP on the test file's clicks by calibration
    oof_interval          95 % interval for the score on the test file's clicks, predicted from
                          held-out rows (last seed); `oof_within`: share of seeds inside it
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from expectation import expected_score
from scipy.special import logit

from tossctr.calibration.calibrate import calibrate
from tossctr.calibration.held_out import HeldOut
from tossctr.data.synthetic import synthesize
from tossctr.experiments.blend import blend
from tossctr.experiments.predictors import load_predictor
from tossctr.experiments.train import train_in_folds
from tossctr.families.experiment import load_experiment
from tossctr.inference.calibrator import calibrator_of
from tossctr.inference.predictor import Predictor
from tossctr.metrics.ceiling import read_truth
from tossctr.metrics.registry import evaluate
from tossctr.metrics.uncertainty import standard_errors
from tossctr.training.device import resolve_device
from tossctr.trees.config import LightGBMConfig

MODELS = "FESeq_toy_slot,DCNv2Seq_toy,LightGBM_toy"
# With 5,000 clicks, networks gain from ten epochs with new non-clicks in each.
OF_NETWORKS = ("negative_sampling=0.25", "epochs=10", "embedding_regularizer=1e-5")
SCORE = "competition_score"


def logits_of(predictor: Predictor, test: Path, device: torch.device) -> np.ndarray:
    return np.concatenate([p.logit for p in predictor.logits(test, device=device)])


def one_seed(seed: int, folder: Path, options: Any, device: torch.device) -> dict[str, Any]:
    synthesize(folder, options.rows, options.test_rows, seed=seed)
    test = folder / "test.parquet"
    label, truth = read_truth(folder / "truth.parquet", "test")
    overrides = [
        f"train_data={folder / 'train.parquet'}",
        f"test_data={test}",
        f"data_root={folder}",
        f"model_root={folder / 'runs'}",
        f"seed={seed}",
        *options.set,
    ]
    members: dict[str, Predictor] = {}
    singles = {}
    for expid in options.models.split(","):
        experiment = load_experiment(harness.CONFIGS, expid, overrides)
        if not isinstance(experiment.hyperparameters, LightGBMConfig):
            experiment = load_experiment(harness.CONFIGS, expid, [*OF_NETWORKS, *overrides])
        predictor = train_in_folds(
            experiment, device, folds=options.folds, method="stratified", seeds=[seed]
        )
        members[expid] = predictor
        raw = logits_of(predictor, test, device)
        mapped = calibrator_of(predictor, SCORE, device)(raw)
        singles[expid] = {
            "raw": expected_score(raw, truth)[SCORE],
            "calibrated": expected_score(mapped, truth)[SCORE],
        }
    result = blend(members, folder / "runs" / "blend", device)
    blended = load_predictor(folder / "runs" / "blend")
    raw = logits_of(blended, test, device)
    to_score = calibrator_of(blended, SCORE, device)
    before, after = expected_score(raw, truth), expected_score(to_score(raw), truth)
    best = expected_score(logit(truth) - logit(truth.mean()), truth)
    on_clicks = evaluate(label, to_score(raw))
    held = blended.held_out(device)
    mapped = to_score(held.logit)
    oof = evaluate(held.label, mapped)[SCORE]
    error = standard_errors(held.label, mapped)[SCORE]
    # A prediction interval: both samples of rows are random.
    half = 1.96 * error * (1 + len(held) / len(label)) ** 0.5
    low, high = oof - half, oof + half
    chance = expected_score(np.zeros(len(label)), truth)[SCORE]
    return {
        "singles": singles,
        "best_single": singles[result.best_single]["raw"],
        "best_single_calibrated": singles[result.best_single]["calibrated"],
        "best_single_name": result.best_single,
        "method": result.combination.method,
        "weights": dict(zip(members, result.combination.weights, strict=True)),
        "map": to_score.method,
        "blend": before[SCORE],
        "calibrated": after[SCORE],
        "ceiling": best[SCORE],
        "chance": chance,
        "gain": after[SCORE] - singles[result.best_single]["raw"],
        "gain_calibrated": after[SCORE] - singles[result.best_single]["calibrated"],
        "wll_error": after["WLL"] / best["WLL"] - 1,
        "calibration_wll_error": of_distorted_truth(folder, best["WLL"]),
        "ap_change": abs(on_clicks["AP"] - evaluate(label, raw, ["AP"])["AP"]),
        "oof_score": oof,
        "oof_interval": [low, high],
        "oof_within": float(low <= on_clicks[SCORE] <= high),
    }


def of_distorted_truth(folder: Path, best_wll: float) -> float:
    """Relative WLL error after calibrating distorted true probabilities."""

    def bent(probability: np.ndarray) -> np.ndarray:
        natural = logit(probability)
        return 0.6 * natural + 0.4 * np.tanh(natural + 4) - 1.5

    label, probability = read_truth(folder / "truth.parquet", "train")
    held = HeldOut(
        row=np.arange(len(label)),
        label=label.astype(np.float32),
        logit=bent(probability),
        prior=float(label.mean()),
    )
    mapped = calibrate(held, SCORE).calibrator
    label, probability = read_truth(folder / "truth.parquet", "test")
    return expected_score(mapped(bent(probability)), probability)["WLL"] / best_wll - 1


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return statistics.fmean(f[name] for f in found)

    def std(name: str) -> float:
        values = [f[name] for f in found]
        return statistics.stdev(values) if len(values) > 1 else 0.0

    names = (
        "best_single", "best_single_calibrated", "blend", "calibrated", "ceiling", "wll_error",
        "oof_within", "gain", "gain_calibrated",
    )  # fmt: skip
    means = {name: mean(name) for name in names}
    lift = (means["calibrated"] - mean("chance")) / (means["ceiling"] - mean("chance"))
    return {
        "singles": {
            name: {
                kind: statistics.fmean(f["singles"][name][kind] for f in found) for kind in kinds
            }
            for name, kinds in found[0]["singles"].items()
        },
        **means,
        "gain_std": std("gain"),
        "gain_calibrated_std": std("gain_calibrated"),
        "share": means["calibrated"] / means["ceiling"],
        "share_above_chance": lift,
        "calibration_wll_error": max((f["calibration_wll_error"] for f in found), key=abs),
        "ap_change": max(f["ap_change"] for f in found),
        "oof_interval": found[-1]["oof_interval"],
        "by_seed": found,
    }


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--test-rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--gpu", type=int, default=-1)
    parser.add_argument("--folder", type=Path, help="keep all files here, to resume after a kill")
    parser.add_argument("--set", action="append", default=[], help="override a config key")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows, options.seeds, options.folds = 8_000, 4_000, 1, 2
        options.models = "DCNv2_toy,DeepFM_toy"
        options.set = ["epochs=1", "max_len=32", *options.set]
    device = resolve_device(options.gpu)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        found = []
        for seed in range(1, options.seeds + 1):
            found.append(one_seed(seed, folder / f"data_{seed}", options, device))
            print(json.dumps(found[-1]), flush=True)  # a seed can take hours
    figures = {"rows": options.rows, "models": options.models, **summary(found)}
    harness.finish({**figures, "peak_mb": harness.own_peak_mb()}, options.json)


if __name__ == "__main__":
    main()
