"""Scaled dot-product attention among the events of each row, packed or padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tossctr.models.layers.packed import Events, take_unique

SHORTEST_IN_GROUP = 0.875  # relative to the longest: at most 1/8 of a group's slots are padding
MAX_SCORES = 2**25  # rows x heads x T x T of a group; bounds the kernels' scratch memory


@dataclass(frozen=True)
class Group:
    """Rows of similar length, padded to the longest of them.

    Attributes:
        rows: the number of rows.
        length: T, the longest row's.
        filled: (rows, T) bool, False at padding; None if there is no padding.
    """

    rows: int
    length: int
    filled: Tensor | None


@dataclass(frozen=True)
class PaddedGroups:
    """A batch's M packed events in N slots of padded groups, one group after the other.

    Attributes:
        groups: the groups.
        slot_to_event: (N,) int64; padding repeats the row's last event.
        event_to_slot: (M,) int64.
    """

    groups: tuple[Group, ...]
    slot_to_event: Tensor
    event_to_slot: Tensor


def supports_packed_kernel(x: Tensor, dropout_p: float) -> bool:
    """Whether `RaggedAttention` can be used: float32 on a CPU without dropout."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and dropout_p == 0
        and not torch.is_autocast_enabled("cpu")
    )


def pad_in_groups(events: Events, num_heads: int) -> PaddedGroups:
    """Sort the rows by length and split them into groups of similar length."""
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
    slot_to_event = torch.cat([s.flatten() for s in sources])
    filled_slots = torch.cat([m.flatten() for m in masks]).nonzero().flatten()
    event_to_slot = torch.empty_like(filled_slots)
    event_to_slot[slot_to_event[filled_slots]] = filled_slots
    return PaddedGroups(tuple(groups), slot_to_event, event_to_slot)


class _Pad(torch.autograd.Function):
    """Packed (M, W) -> slots (N, W).

    The gradient of a padded slot is zero, because it is masked as a key and dropped as a query; so
    only those of the events' own slots are gathered.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot_to_event: Tensor, event_to_slot: Tensor) -> Tensor:
        ctx.save_for_backward(event_to_slot)
        return x.index_select(0, slot_to_event)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (event_to_slot,) = ctx.saved_tensors
        return grads[0].index_select(0, event_to_slot), None, None


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padded: PaddedGroups,
    num_heads: int,
    *,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Multi-head attention of each event to the events of its own row, none of them padding.

    Rows are padded on the right, to the length of their group. With `causal` that needs no mask:
    padding comes after every event.

    Args:
        q: queries (M, D) packed.
        k: keys (M, D).
        v: values (M, D).
        num_heads: divides D.
        padded: from `pad_in_groups`, computed once for all layers.
        causal: an event sees itself and earlier ones only.
        dropout_p: dropout on the attention weights.

    Returns:
        (M, D) packed.
    """
    sizes = [group.rows * group.length for group in padded.groups]
    qkv = [
        _Pad.apply(x, padded.slot_to_event, padded.event_to_slot).split(sizes)  # type: ignore[no-untyped-call]
        for x in (q, k, v)
    ]
    out = [
        _attend(
            [x.view(group.rows, group.length, num_heads, -1).transpose(1, 2) for x in tensors],
            mask=None if causal or group.filled is None else group.filled[:, None, None, :],
            causal=causal,
            dropout_p=dropout_p,
        )
        for group, *tensors in zip(padded.groups, *qkv, strict=True)
    ]
    return take_unique(torch.cat(out), padded.event_to_slot)


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
    """`packed_attention` for rows of equal length that contain padding, marked by `events.real`.

    A padded key is masked for all queries but itself, whose softmax would otherwise be empty.

    Raises:
        ValueError: `events.real` is None.
    """
    if events.real is None:
        raise ValueError("the events contain no padding")
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
