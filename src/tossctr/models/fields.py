"""Checks of a model's options against the features and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, overload

import torch
from pydantic import AfterValidator

from tossctr.config.messages import suggestion
from tossctr.config.names import Groups, flat
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap, FieldType
from tossctr.errors import UserError
from tossctr.models.layers.embedding import FieldEmbedding
from tossctr.models.layers.mlp import activation

COLUMNS: tuple[FieldType, ...] = ("categorical", "numeric")
SEQUENCES: tuple[FieldType, ...] = ("sequence", "numeric_sequence")


def _known_activations(value: Any) -> Any:
    for name in flat(value):
        activation(name, 1)
    return value


Activations = Annotated[str | tuple[str, ...], AfterValidator(_known_activations)]
"""One activation for all hidden layers, or one for each."""


def check_fields(
    features: FeatureMap, option: str, names: Iterable[str], types: tuple[FieldType, ...]
) -> None:
    """Raise `UserError` if an option names a field that is unknown or not of these types."""
    for name in names:
        if name not in features or features[name].type not in types:
            problem = (
                f"names a {features[name].type} feature"
                if name in features
                else "names an unknown feature"
            )
            raise UserError(
                problem,
                key=option,
                value=name,
                remedy=suggestion(name, features.names(*types)),
            )


def check_groups(targets: Groups, sequences: Groups, option: str) -> None:
    """Raise `UserError` unless each group of target fields has one for each sequence field."""
    if not targets or [len(t) for t in targets] != [len(s) for s in sequences]:
        raise UserError(
            "must have one field for each sequence field, group by group",
            key=option,
            value=targets,
        )


def check_pairs(
    embedding: FieldEmbedding, targets: Sequence[str], sequences: Sequence[str], option: str
) -> None:
    """Raise `UserError` unless each target field has the `embedding_dim` of its sequence field."""
    for target, sequence in zip(targets, sequences, strict=True):
        widths = embedding.widths((target, sequence))
        if len(set(widths)) > 1:
            raise UserError(
                f"{target} and {sequence} differ in embedding_dim", key=option, value=widths
            )


def check_heads(width: int, num_heads: int, what: str = "the model width") -> None:
    """Raise `UserError` unless `num_heads` divides a width."""
    if width % num_heads:
        raise UserError(
            f"{what} {width} is not divisible by num_heads",
            key="num_heads",
            value=num_heads,
            remedy="change num_heads or the width",
        )


def one_width(widths: Sequence[int], what: str) -> int:
    """The common width of all fields.

    Raises:
        UserError: they differ.
    """
    if len(set(widths)) != 1:
        raise UserError(
            f"{what} needs fields of one embedding_dim",
            value=sorted(set(widths)),
            remedy="remove embedding_dim from the features",
        )
    return widths[0]


@overload
def max_len_of(features: FeatureMap, sequences: Sequence[str], needed_by: str) -> int: ...


@overload
def max_len_of(
    features: FeatureMap, sequences: Sequence[str], needed_by: str | None = None
) -> int | None: ...


def max_len_of(
    features: FeatureMap, sequences: Sequence[str], needed_by: str | None = None
) -> int | None:
    """The `max_len` that the sequence fields share; None if it is neither set nor needed.

    Args:
        features: the fields.
        sequences: names of sequence fields.
        needed_by: the option or layer that needs it.

    Raises:
        UserError: the fields differ in it, or it is needed and not set.
    """
    lengths = {features[name].max_len for name in sequences}
    if len(lengths) > 1:
        raise UserError(
            f"the sequence fields {', '.join(sequences)} differ",
            key="max_len",
            value=sorted(lengths, key=str),
            remedy="give them one max_len",
        )
    length = lengths.pop()
    if length is None and needed_by is not None:
        raise UserError(
            f"is not set, but {needed_by} needs it", key="max_len", remedy="set max_len"
        )
    return length


def check_histories(batch: Batch, names: Sequence[str], max_len: int | None) -> None:
    """Raise `UserError` unless the histories have equal lengths row by row, at most `max_len`."""
    histories = {**batch.sequences, **batch.time_sequences}
    first = histories[names[0]]
    if max_len is not None and first.max_length > max_len:
        raise UserError(
            f"has {first.max_length} events",
            column=names[0],
            remedy=f"cut histories to max_len {max_len}",
        )
    for name in names[1:]:
        own, other = first.lengths, histories[name].lengths
        if not torch.equal(own, other):
            row = int((own != other).nonzero()[0])
            raise UserError(
                f"has {int(other[row])} events where {names[0]} has {int(own[row])}",
                column=name,
                row=row if batch.row is None else int(batch.row[row]),
                remedy="sequence fields of one model must have equal lengths",
            )
