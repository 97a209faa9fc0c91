"""Batch normalisation that accepts a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` on (N, width) that uses the running statistics if N < 2.

    A batch of one has no variance; in training torch raises an error for it, which would end a run
    at a short last batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < 2:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a row's output depends, in training, on the other rows of its batch."""
    return any(isinstance(module, BatchNorm) for module in model.modules())
