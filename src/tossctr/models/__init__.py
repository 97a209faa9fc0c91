"""The models: each maps a `Batch` to logits and has a typed config."""

from __future__ import annotations

import torch

from tossctr.config.schema import ModelConfig
from tossctr.data.features import FeatureMap
from tossctr.models.autoint import AutoInt
from tossctr.models.base import CTRModel
from tossctr.models.bst import BST
from tossctr.models.dcnv2 import DCNv2
from tossctr.models.dcnv2_seq import DCNv2Seq
from tossctr.models.deepfm import DeepFM
from tossctr.models.din import DIN
from tossctr.models.feseq import FESeq
from tossctr.models.sasrec import SASRec

MODELS: dict[str, type[CTRModel]] = {
    "FESeq": FESeq,
    "BST": BST,
    "DIN": DIN,
    "SASRec": SASRec,
    "DeepFM": DeepFM,
    "DCNv2": DCNv2,
    "DCNv2Seq": DCNv2Seq,
    "AutoInt": AutoInt,
}


def build_model(
    name: str, features: FeatureMap, hyperparameters: ModelConfig, seed: int | None = None
) -> CTRModel:
    """A model with freshly drawn weights.

    Args:
        name: a key of `MODELS`.
        features: the fields, with the lengths chosen for training.
        hyperparameters: an instance of that model's `Config`.
        seed: of the initial weights; None uses torch's global generator.

    Raises:
        UserError: hyperparameters that do not fit the features.
    """
    if seed is None:
        return MODELS[name](features, hyperparameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](features, hyperparameters)
