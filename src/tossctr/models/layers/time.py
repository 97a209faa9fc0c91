"""Time-interval buckets (FESeq, Yuan et al. 2024, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-13  # keeps exact powers of the base out of the bucket below, despite rounding


def time_buckets(target: Tensor, event: Tensor, buckets: int, log_base: float) -> Tensor:
    """Bucket of the time between an event and its target, in float64.

    Args:
        target: (M,) the targets' time stamps.
        event: (M,) those of the events, in the same unit; an interval below 0 counts as 0.
        buckets: rows of the table; the last is padding, so the last bucket is `buckets` - 2.
        log_base: -1 for linear buckets of one unit, else floor(log(1 + interval) / log(base)).

    Returns:
        (M,) int64.
    """
    interval = (target.double() - event.double()).clamp(min=0)
    if log_base != -1:
        interval = torch.log1p(interval) / math.log(log_base) + EPSILON
    return interval.clamp(max=buckets - 2).floor().long()
