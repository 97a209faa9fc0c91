"""Scaled dot-product attention among the events of each row, packed or padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tossctr.models.layers.packed import Events, take_unique

SHORTEST_IN_GROUP = 0.875  # of the longest: at most 1/8 of a group's slots are padding
MAX_SCORES = 2**25  # scores (rows x heads x T x T) of a group, bounds the kernels' scratch memory


@dataclass(frozen=True)
class Group:
    """Rows of similar length that are padded to the longest of them.

    Attributes:
        rows, length: how many, and T.
        filled: (rows, T) bool, False at padding; None where all are T long.
    """

    rows: int
    length: int
    filled: Tensor | None


@dataclass(frozen=True)
class Slots:
    """The groups of a batch and where each event lies in them, group after group: N slots.

    Attributes:
        source: (N,) int64, the packed event in each slot; padding repeats the row's last event.
        place: (M,) int64, the slot of each packed event.
    """

    groups: tuple[Group, ...]
    source: Tensor
    place: Tensor


def attends_in_place(x: Tensor, dropout_p: float) -> bool:
    """Whether `RaggedAttention` will do, which needs no groups: float32, on a CPU, no dropout."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and dropout_p == 0
        and not torch.is_autocast_enabled("cpu")
    )


def slots_of(events: Events, num_heads: int) -> Slots:
    """Split the rows, longest first, into groups of similar length (rows may come in any order)."""
    device = events.offsets.device
    descending, order = events.lengths.cpu().sort(descending=True, stable=True)
    lengths = descending.tolist()
    starts = events.offsets[:-1][order.to(device)]
    groups, sources, masks, begin = [], [], [], 0
    while begin < len(lengths):
        longest = lengths[begin]
        limit = begin + max(1, MAX_SCORES // (num_heads * longest * longest))
        end = begin + 1
        while end < min(limit, len(lengths)) and lengths[end] >= SHORTEST_IN_GROUP * longest:
            end += 1
        slot = torch.arange(longest, device=device)
        length = descending[begin:end, None].to(device)
        filled = slot < length
        sources.append(starts[begin:end, None] + torch.minimum(slot, length - 1))
        masks.append(filled)
        same = lengths[end - 1] == longest
        groups.append(Group(end - begin, longest, None if same else filled))
        begin = end
    source = torch.cat([s.flatten() for s in sources])
    taken = torch.cat([m.flatten() for m in masks]).nonzero().flatten()
    place = torch.empty_like(taken)
    place[source[taken]] = taken
    return Slots(tuple(groups), source, place)


class _Pad(torch.autograd.Function):
    """Packed (M, W) -> slots (N, W).

    The gradient comes back along `place` alone: that of a padded slot is zero, because it is
    masked as a key and dropped as a query.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return grads[0].index_select(0, place), None, None


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Slots,
    num_heads: int,
    *,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Multi-head attention of each event to the events of its own row, no event being padding.

    Rows are padded on the right, within their group only; with `causal` that needs no mask, since
    a real query comes before all padding.

    Args:
        q: queries (M, D) packed.
        k: keys, likewise.
        v: values, likewise.
        num_heads: divides D.
        slots: from `slots_of`, once for all layers.
        causal: an event sees itself and earlier ones only.
        dropout_p: dropout on the attention weights.

    Returns:
        (M, D) packed.
    """
    sizes = [group.rows * group.length for group in slots.groups]
    padded = [
        _Pad.apply(x, slots.source, slots.place).split(sizes)  # type: ignore[no-untyped-call]
        for x in (q, k, v)
    ]
    out = [
        _attend(
            [x.view(group.rows, group.length, num_heads, -1).transpose(1, 2) for x in qkv],
            mask=None if causal or group.filled is None else group.filled[:, None, None, :],
            causal=causal,
            dropout_p=dropout_p,
        )
        for group, *qkv in zip(slots.groups, *padded, strict=True)
    ]
    return take_unique(torch.cat(out), slots.place)


def padded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    events: Events,
    num_heads: int,
    *,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """The same for rows that are all `events.max_length` long, padding (`events.real`) included.

    Padded keys are blocked, except from the padded event itself, which would see nothing else.
    """
    assert events.real is not None
    length = events.max_length
    itself = torch.eye(length, dtype=torch.bool, device=q.device)
    allowed = events.real.view(events.rows, 1, 1, length) | itself
    if causal:
        allowed = allowed.tril()
    heads = [x.view(events.rows, length, num_heads, -1).transpose(1, 2) for x in (q, k, v)]
    return _attend(heads, mask=allowed, causal=False, dropout_p=dropout_p)


def _attend(qkv: list[Tensor], mask: Tensor | None, causal: bool, dropout_p: float) -> Tensor:
    # Three of (rows, H, T, D/H) -> (rows * T, D)
    q, k, v = qkv
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=causal
    )
    return out.transpose(1, 2).flatten(2).flatten(0, 1)
