"""Cross networks: bit-wise feature crosses x <- x + x0 * f(x), (N, width) -> (N, width)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tossctr.models.layers.packed import Events, bag


class CrossNet(nn.Module):
    """f(x) = w.x, plus a bias vector (DCN, Wang et al. 2017, eq. 3)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = x + weight(x) * x0 + bias
        return x


class CrossNetV2(nn.Module):
    """f(x) = A x + b (DCN-V2, Wang et al. 2021, eq. 1)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for linear in self.linears:
            x = torch.addcmul(x, x0, linear(x))
        return x

    def forward_shared(self, own: Tensor, shared: Tensor, events: Events) -> Tensor:
        """`forward` for events [own, shared], where `shared` is the same for all events of a row.

        A [own, shared] + b = A_own own + (A_shared shared + b); the bracket is computed once per
        row. Only `own` and `shared` are saved for the backward pass.

        Args:
            own: packed (M, width - width of shared).
            shared: (B, width of shared).
            events: of the M events.
        """
        parameters = [p for linear in self.linears for p in (linear.weight, linear.bias)]
        if not parameters:
            raise ValueError("a cross network needs at least one layer")
        out: Tensor = _SharedCross.apply(  # type: ignore[no-untyped-call]
            own, shared, events.lengths, events.offsets, *parameters
        )
        return out


class _SharedCross(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, own: Tensor, shared: Tensor, lengths: Tensor, offsets: Tensor, *layers: Tensor
    ) -> Tensor:
        ctx.save_for_backward(own, shared, lengths, offsets, *layers)
        x0, x, _ = _first_cross(own, shared, lengths, layers[0], layers[1])
        for weight, bias in zip(layers[2::2], layers[3::2], strict=True):
            x = x.addcmul_(x0, F.linear(x, weight, bias))
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        own, shared, lengths, offsets, *layers = ctx.saved_tensors
        weights, biases = layers[::2], layers[1::2]
        x0, x, product = _first_cross(own, shared, lengths, weights[0], biases[0])
        inputs, products = [x], []
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            products.append(F.linear(inputs[-1], weight, bias))
            inputs.append(torch.addcmul(inputs[-1], x0, products[-1]))

        # x_(l+1) = x_l + x0 * u_l with u_l = A_l x_l + b_l, from the last layer to the first
        grad, grad_x0 = grads[0], torch.zeros_like(x0)
        later: list[Tensor] = []
        for weight, u, x in zip(weights[:0:-1], products[::-1], inputs[-2::-1], strict=True):
            grad_x0.addcmul_(grad, u)
            grad_u = grad * x0
            later = [grad_u.t() @ x, grad_u.sum(0), *later]
            grad = torch.addmm(grad, grad_u, weight)
        grad_x0.addcmul_(grad, product).add_(grad)
        grad_u = grad * x0
        width = own.shape[1]
        of_row = bag(grad_u, offsets)
        grad_weight = torch.cat([grad_u.t() @ own, of_row.t() @ shared], dim=1)
        grad_own = torch.addmm(grad_x0[:, :width], grad_u, weights[0][:, :width])
        grad_shared = torch.addmm(bag(grad_x0[:, width:], offsets), of_row, weights[0][:, width:])
        return grad_own, grad_shared, None, None, grad_weight, of_row.sum(0), *later


def _first_cross(
    own: Tensor, shared: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # x0, x1 and A x0 + b, (M, width) each
    width, count = own.shape[1], len(own)
    x0 = own.new_empty(count, len(weight))
    x0[:, :width] = own
    x0[:, width:] = shared.repeat_interleave(lengths, 0, output_size=count)
    of_row = F.linear(shared, weight[:, width:], bias)
    product = of_row.repeat_interleave(lengths, 0, output_size=count)
    product.addmm_(own, weight[:, :width].t())
    return x0, torch.addcmul(x0, x0, product), product


class CrossNetMix(nn.Module):
    """f is a mixture of low-rank experts U tanh(C tanh(V' x)) + b (DCN-V2, section 3.4).

    All layers share the gates, one linear layer without bias per expert.
    """

    def __init__(self, width: int, layers: int, experts: int = 4, rank: int = 32) -> None:
        super().__init__()

        def matrices(*shape: int) -> nn.ParameterList:
            # Xavier normal over each layer's stack, as in the public implementation.
            return nn.ParameterList(
                nn.Parameter(nn.init.xavier_normal_(torch.empty(experts, *shape)))
                for _ in range(layers)
            )

        self.v = matrices(width, rank)
        self.c = matrices(rank, rank)
        self.u = matrices(width, rank)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.gates = nn.Linear(width, experts, bias=False)

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for v, c, u, bias in zip(self.v, self.c, self.u, self.biases, strict=True):
            low = torch.tanh(torch.einsum("nw,ewr->ner", x, v))
            low = torch.tanh(torch.einsum("ner,esr->nes", low, c))
            gate = self.gates(x).softmax(dim=-1)
            # The gates sum to 1, so the experts' common bias can be added after mixing.
            mixed = torch.einsum("nes,ews->nw", low * gate[:, :, None], u) + bias
            x = torch.addcmul(x, x0, mixed)
        return x
