"""Losses for rare clicks, on logits.

binary_crossentropy  the proper one
weighted_bce         a click counts `positive_weight` (w) times. That multiplies the odds at the
                     optimum by w, so the loss is taken at logit + log(w): the model's own
                     output stays that of unweighted rows (King and Zeng 2001, section 3)
focal                cross entropy x (1 - p of the row's class)^gamma: Lin et al., ICCV 2017. It
                     is not proper: its probabilities are too near 1/2 until calibrated
pairwise             cross entropy + `pairwise_weight` x the mean over pairs of a click and a
                     non-click of the batch of log(1 + exp(z- - z+)) (Burges et al., ICML 2005)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from tossctr.config.schema import TrainingConfig


class Loss:
    """The configured loss, of a batch in parts: a term of each row and, for pairs, of all.

    Attributes:
        pairs: whether there is a term of pairs.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.pairs = config.loss == "pairwise"
        self._config = config
        self._shift = -math.log(config.negative_sampling)
        if config.loss == "weighted_bce":
            self._shift += math.log(config.positive_weight)

    def row_loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """() the sum over rows (B,)."""
        z, config = logit + self._shift, self._config
        if config.loss == "focal":
            signed = torch.where(label > 0.5, z, -z)  # log odds of the row's own class
            return -(torch.sigmoid(-signed) ** config.focal_gamma * logsigmoid(signed)).sum()
        weight = logit.new_tensor(config.positive_weight) if config.loss == "weighted_bce" else None
        return binary_cross_entropy_with_logits(z, label, pos_weight=weight, reduction="sum")

    def pair_loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """() the mean over pairs of a whole batch (B,), weighted; 0 where there is no pair."""
        gaps = logit[label <= 0.5] - logit[label > 0.5][:, None]
        return self._config.pairwise_weight * softplus(gaps).sum() / max(gaps.numel(), 1)

    def pair_gradient(self, logit: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The term of pairs of a whole batch, and its gradient (B,)."""
        leaf = logit.detach().requires_grad_()
        with torch.enable_grad():
            value = self.pair_loss(leaf, label)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient
