"""L1 and L2 regularisation in FuxiCTR's notation, applied to gradients (feseq_spec section 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from tossctr.errors import UserError

_NUMBER = r"\s*([0-9.eE+-]+)\s*"
_FORM = re.compile(rf"l1\({_NUMBER}\)|l2\({_NUMBER}\)|l1_l2\({_NUMBER},{_NUMBER}\)")


@dataclass(frozen=True)
class Penalty:
    """l1 * |p|_1 + l2 / 2 * |p|_2^2, over complete tensors at every step."""

    l1: float = 0.0
    l2: float = 0.0

    @classmethod
    def parse(cls, text: float | str | None, key: str) -> Penalty:
        """Parse `l1(x)`, `l2(x)`, `l1_l2(a, b)`, or a number x, which is l2(x).

        Raises:
            UserError: anything else.
        """
        if text is None:
            return cls()
        if isinstance(text, int | float):
            return cls(l2=float(text))
        try:
            if found := _FORM.fullmatch(text.strip()):
                return cls(float(found[1] or found[3] or 0), float(found[2] or found[4] or 0))
        except ValueError:
            pass  # the form matches, but not the number
        raise UserError(
            f"{key} is not a regularizer",
            value=text,
            remedy="write a number, l1(x), l2(x) or l1_l2(a, b)",
        )

    @torch.no_grad()
    def add_gradient(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the penalty's gradient directly, without a graph over complete tables."""
        if not (self.l1 or self.l2):
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            if self.l2:
                p.grad.add_(p, alpha=self.l2)
            if self.l1:
                p.grad.add_(p.sign(), alpha=self.l1)
