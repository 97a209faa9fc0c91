"""Batch normalisation that copes with a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` on (N, width), by the running statistics where N has none of its own.

    One row or event has no variance, and none has no mean: torch raises there in training, which
    would end a run on its last, short batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < 2:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether what a model makes of a row depends, in training, on the rest of its batch."""
    return any(isinstance(module, BatchNorm) for module in model.modules())
