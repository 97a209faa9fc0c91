"""Gradient-boosted trees on the store that the neural models train on."""

from __future__ import annotations

from tossctr.config.schema import ModelConfig
from tossctr.trees.config import LightGBMConfig

TREES: dict[str, type[ModelConfig]] = {"LightGBM": LightGBMConfig}
