"""Multi-layer perceptron and its activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tossctr.errors import UserError
from tossctr.models.layers.norm import BatchNorm


class Dice(nn.Module):
    """x * p + alpha * x * (1 - p), p = sigmoid of the batch-normalised x (DIN, Zhou et al. 2018).

    Shapes: (N, width) -> (N, width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width, eps=1e-9, momentum=0.01, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.norm(x))
        return x * (p + self.alpha * (1 - p))


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda width: nn.ReLU(),
    "leaky_relu": lambda width: nn.LeakyReLU(),
    "gelu": lambda width: nn.GELU(),
    "silu": lambda width: nn.SiLU(),
    "elu": lambda width: nn.ELU(),
    "tanh": lambda width: nn.Tanh(),
    "sigmoid": lambda width: nn.Sigmoid(),
    "prelu": lambda width: nn.PReLU(width, init=0.1),
    "dice": Dice,
}


def activation(name: str, width: int) -> nn.Module:
    """An activation by FuxiCTR's name, in any letter case.

    Raises:
        UserError: no such activation.
    """
    make = ACTIVATIONS.get(name.lower())
    if make is None:
        raise UserError(
            "unknown activation", value=name, remedy=f"use one of {', '.join(ACTIVATIONS)}"
        )
    return make(width)


class Output(nn.Linear):
    """A linear layer that computes in float32 even under autocast.

    In bf16, 20,000 logits had only 26 distinct values, so most rows would tie.
    """

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class MLP(nn.Module):
    """Hidden layers of linear, optional BatchNorm, activation, dropout; then an optional `Output`.

    Shapes: (N, input_width) -> (N, output_width), or the last hidden width without `output_width`.

    Args:
        activations: one name for all hidden layers, or one for each.
    """

    def __init__(
        self,
        input_width: int,
        hidden_units: Sequence[int],
        *,
        output_width: int | None = None,
        activations: str | Sequence[str] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        names = [activations] * len(hidden_units) if isinstance(activations, str) else activations
        if len(names) != len(hidden_units):
            raise UserError(
                f"{len(names)} activations for {len(hidden_units)} hidden layers",
                remedy="give one name, or one for each hidden layer",
            )
        layers: list[nn.Module] = []
        for width, name in zip(hidden_units, names, strict=True):
            layers.append(nn.Linear(input_width, width))
            if batch_norm:
                layers.append(BatchNorm(width))
            layers.append(activation(name, width))
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            input_width = width
        if output_width is not None:
            layers.append(Output(input_width, output_width))
            input_width = output_width
        self.output_width = input_width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out
