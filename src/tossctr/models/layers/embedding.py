"""Field embeddings: a table for each vocabulary, a vector for each numeric field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tossctr.config.schema import NumericEmbedding
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap, Field
from tossctr.errors import UserError
from tossctr.models.layers.numeric import NUMERIC

TABLE_STD = 1e-4
_IDS = ("categorical", "sequence")
_NUMBERS = ("numeric", "numeric_sequence")


def new_table(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """A table drawn from a normal distribution of standard deviation 1e-4, its padding row zero."""
    table = nn.Embedding(rows, width, padding_idx=padding_idx)
    with torch.no_grad():
        nn.init.normal_(table.weight, std=TABLE_STD)
        if padding_idx is not None:
            table.weight[padding_idx].zero_()
    return table


def sinusoidal_table(rows: int, width: int) -> nn.Embedding:
    """A position table initialised with sines and cosines (Vaswani et al. 2017, section 3.5)."""
    table = nn.Embedding(rows, width)
    frequency = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(rows)[:, None] * frequency
    with torch.no_grad():
        table.weight[:, 0::2] = torch.sin(angle)
        table.weight[:, 1::2] = torch.cos(angle)[:, : width // 2]
    return table


@dataclass(frozen=True)
class _NumericRun:
    """Neighbouring numeric fields of one width, embedded by one multiplication.

    `columns` are their indices in `Batch.numeric`, `vectors` those of their vectors.
    """

    width: int
    columns: list[int]
    vectors: list[int]


class FieldEmbedding(nn.Module):
    """Embeds the named fields of a `Batch`.

    Ids are looked up in a table with a zero row for PAD. A number is multiplied by its field's
    vector, or embedded by a layer of `layers.numeric`. A field with `share_embedding` uses the
    table or vector of the field it names; a field's `embedding_dim` overrides the default width.

    Args:
        features: the definitions of the fields.
        names: the fields to embed.
        embedding_dim: the default width.
        share: False ignores `share_embedding`.
        numeric: how numbers are embedded.

    Raises:
        UserError: `share_embedding` names a field that cannot be shared.
    """

    def __init__(
        self,
        features: FeatureMap,
        names: Iterable[str],
        embedding_dim: int,
        *,
        share: bool = True,
        numeric: NumericEmbedding = "linear",
    ) -> None:
        super().__init__()
        self._owner = {
            name: owner_of(features, name) if share else features[name] for name in names
        }
        self._width = {
            name: owner.embedding_dim or embedding_dim for name, owner in self._owner.items()
        }
        self._column = {
            name: i
            for field_type in ("categorical", "numeric")
            for i, name in enumerate(features.names(field_type))
        }
        self._type = {name: features[name].type for name in self._owner}
        self.tables = nn.ModuleDict()
        self._vector: dict[str, int] = {}
        vectors: dict[int, int] = {}
        for name, owner in self._owner.items():
            width = self._width[name]
            if owner.type in _IDS and _key(owner) not in self.tables:
                self.tables[_key(owner)] = new_table(owner.num_ids, width, padding_idx=0)
            elif owner.type in _NUMBERS and owner.name not in self._vector:
                self._vector[owner.name] = vectors.get(width, 0)
                vectors[width] = vectors.get(width, 0) + 1
        # Xavier normal, as for a linear layer from 1 to `width` without bias.
        self.vectors = nn.ParameterDict(
            {
                str(w): nn.Parameter(torch.randn(n, w) * (2 / (1 + w)) ** 0.5)
                for w, n in vectors.items()
                if numeric == "linear"
            }
        )
        self.curves = nn.ModuleDict(
            {str(w): NUMERIC[numeric](n, w) for w, n in vectors.items() if numeric != "linear"}
        )
        self._plans: dict[tuple[str, ...], list[str | _NumericRun]] = {}

    def widths(self, names: Iterable[str]) -> list[int]:
        """The width of each named field's embedding."""
        return [self._width[name] for name in names]

    def table(self, name: str) -> nn.Embedding:
        """The table of an id field."""
        return cast(nn.Embedding, self.tables[_key(self._owner[name])])

    def vector(self, name: str) -> Tensor:
        """(width,) the vector of a numeric field; a view."""
        vectors: Tensor = self.vectors[str(self._width[name])]
        return vectors[self._vector[self._owner[name].name]]

    def parameter_of(self) -> dict[str, tuple[str, int | None]]:
        """For each field the name of its parameter, and for a numeric field its row there.

        Raises:
            UserError: `numeric_embedding` is not linear, so that numeric fields have no vectors.
        """
        if self.curves:
            raise UserError(
                "must be linear, so that each numeric field has a vector to load",
                key="numeric_embedding",
                remedy="use numeric_embedding: linear",
            )
        return {
            name: (f"tables.{_key(owner)}.weight", None)
            if owner.type in _IDS
            else (f"vectors.{self._width[name]}", self._vector[owner.name])
            for name, owner in self._owner.items()
        }

    def rows(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """Embeddings of non-sequential fields concatenated in the order named: (B, width)."""
        parts = []
        for part in self._plan(tuple(names)):
            if isinstance(part, str):
                parts.append(self.table(part)(batch.categorical[:, self._column[part]]))
            else:
                numbers = _take(batch.numeric, part.columns, 1)
                parts.append(self._numbers(numbers, part.width, part.vectors).flatten(1))
        return torch.cat(parts, dim=1) if parts else batch.numeric.new_empty(len(batch), 0)

    def events(self, batch: Batch, names: Sequence[str]) -> Tensor:
        """Embeddings of sequential fields of equal lengths, concatenated: packed (M, width)."""
        parts = []
        for name in names:
            values = batch.sequences[name].values
            if self._type[name] == "sequence":
                parts.append(F.embedding(values, self.table(name).weight, padding_idx=0))
            else:
                vector = [self._vector[self._owner[name].name]]
                parts.append(self._numbers(values[:, None], self._width[name], vector).flatten(1))
        return torch.cat(parts, dim=1)

    def _numbers(self, numbers: Tensor, width: int, vectors: list[int]) -> Tensor:
        """(B, m) numbers -> (B, m, width), the i-th embedded by vector or curve `vectors[i]`."""
        if str(width) in self.vectors:
            return numbers[:, :, None] * _take(self.vectors[str(width)], vectors, 0)
        out: Tensor = self.curves[str(width)](numbers, vectors)
        return out

    def _plan(self, names: tuple[str, ...]) -> list[str | _NumericRun]:
        if names not in self._plans:
            plan: list[str | _NumericRun] = []
            for (field_type, width), group in groupby(
                names, key=lambda n: (self._type[n], self._width[n])
            ):
                run = list(group)
                if field_type == "categorical":
                    plan += run
                else:
                    owners = [self._vector[self._owner[name].name] for name in run]
                    plan.append(_NumericRun(width, [self._column[name] for name in run], owners))
            self._plans[names] = plan
        return self._plans[names]


def owner_of(features: FeatureMap, name: str) -> Field:
    """The field whose table or vector a field uses: itself, unless it has `share_embedding`.

    Raises:
        UserError: the shared field is missing, of another type, too small, or shares in a circle.
    """
    field = owner = features[name]
    seen = {name}
    while owner.share_embedding is not None:
        if owner.share_embedding not in features or owner.share_embedding in seen:
            raise UserError(
                "share_embedding must name another feature",
                column=name,
                value=owner.share_embedding,
                remedy="name a feature that has its own embedding",
            )
        owner = features[owner.share_embedding]
        seen.add(owner.name)
    if (field.type in _IDS) != (owner.type in _IDS) or owner.type not in (*_IDS, *_NUMBERS):
        raise UserError(
            f"a {field.type} feature cannot share the embedding of a {owner.type} one",
            column=name,
            value=owner.name,
        )
    if (field.vocab_size or 0) > (owner.vocab_size or 0):
        raise UserError(
            f"has {field.vocab_size} ids but shares a table of {owner.vocab_size}",
            column=name,
            remedy=f"prepare the data with share_embedding: {owner.name}",
        )
    return owner


def _key(field: Field) -> str:
    # A module name must not contain a dot or equal a method of ModuleDict ("type", "items").
    return "field:" + field.name.replace("%", "%25").replace(".", "%2E")


def _take(x: Tensor, index: list[int], dim: int) -> Tensor:
    if index == list(range(index[0], index[0] + len(index))):
        return x.narrow(dim, index[0], len(index))
    return x.index_select(dim, torch.tensor(index, device=x.device))
