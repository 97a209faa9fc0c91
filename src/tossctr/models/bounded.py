"""A model built to receive weights that a file holds, within the memory that these can need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tossctr.config.schema import ModelConfig
from tossctr.data.features import FeatureMap
from tossctr.models import build_model
from tossctr.models.base import CTRModel

_FACTORIES = ("arange", "empty", "eye", "ones", "zeros")
_DRAWS = {"randn", "rand"}


class TooLarge(Exception):
    """The model needs more memory than it was given."""


def build_within(
    name: str, features: FeatureMap, hyperparameters: ModelConfig, limit: int
) -> CTRModel:
    """A model whose weights are not initialised.

    The meta device would need no limit, but its arithmetic imports torch's compiler, which takes
    longer than all else that a prediction imports.

    Args:
        name, features, hyperparameters: as of `build_model`.
        limit: bytes of all tensors that its constructor may make.

    Raises:
        TooLarge: it would make more.
        UserError: as `build_model`.
    """
    with _Bounded(limit):
        return build_model(name, features, hyperparameters)


class _Bounded(TorchFunctionMode):
    """Refuses a tensor before it is made, and leaves random ones uninitialised."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_"):
            return args[0] if args else named["tensor"]
        if name == "mul":
            tensors = [value for value in args if isinstance(value, Tensor)]
            size = math.prod(np.broadcast_shapes(*(tuple(t.shape) for t in tensors)))
            self._take(size * max(t.element_size() for t in tensors))
        elif name in _FACTORIES:
            self._take(func(*args, **{**named, "device": "meta"}).nbytes)
        elif name in _DRAWS:
            self._take(torch.empty(*args, device="meta").nbytes)
            return torch.empty(*args, **named)
        return func(*args, **named)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLarge
