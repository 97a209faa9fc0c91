"""Losses for rare clicks, on logits.

binary_crossentropy  a proper scoring rule
weighted_bce         clicks have weight w = `positive_weight`. That multiplies the optimal odds by
                     w, so the loss is computed at logit + log(w), and the model's output remains
                     that of unweighted rows (King and Zeng 2001, section 3)
focal                cross entropy x (1 - p of the row's class)^gamma (Lin et al., ICCV 2017). Not a
                     proper scoring rule: probabilities are too close to 1/2 until calibrated
pairwise             cross entropy + `pairwise_weight` x the mean over pairs of a click and a
                     non-click of the batch of log(1 + exp(z- - z+)) (RankNet, Burges et al., ICML
                     2005)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from tossctr.config.schema import TrainingConfig


class Loss:
    """The configured loss: a sum over rows, which can be split, and a term over pairs of rows.

    Attributes:
        pairs: whether there is a pairwise term.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.pairs = config.loss == "pairwise"
        self._config = config
        self._shift = -math.log(config.negative_sampling)
        if config.loss == "weighted_bce":
            self._shift += math.log(config.positive_weight)

    def row_loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Scalar: the sum over rows. `logit` and `label` are (B,)."""
        z, config = logit + self._shift, self._config
        if config.loss == "focal":
            signed = torch.where(label > 0.5, z, -z)  # log odds of the row's class
            return -(torch.sigmoid(-signed) ** config.focal_gamma * logsigmoid(signed)).sum()
        weight = logit.new_tensor(config.positive_weight) if config.loss == "weighted_bce" else None
        return binary_cross_entropy_with_logits(z, label, pos_weight=weight, reduction="sum")

    def pair_loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Scalar: the weighted mean over the pairs of a whole batch (B,); 0 without pairs."""
        gaps = logit[label <= 0.5] - logit[label > 0.5][:, None]
        return self._config.pairwise_weight * softplus(gaps).sum() / max(gaps.numel(), 1)

    def pair_gradient(self, logit: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`pair_loss` of a whole batch, and its gradient with respect to the logits (B,)."""
        leaf = logit.detach().requires_grad_()
        with torch.enable_grad():
            value = self.pair_loss(leaf, label)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient
