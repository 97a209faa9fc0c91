"""The usual implementation of FESeq_medium: fixed padding, dense masks, nn.MultiheadAttention.

Histories are left-padded to `max_len`, default fields are repeated over all positions, and
attention uses (B*H, T, T) masks and weights, like the public implementation. It is the baseline of
the speed and memory benchmarks, with the weights of a `FESeq`; its forward pass uses no code of
TossCTR.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tossctr.data.batch import Batch, Ragged
from tossctr.models.feseq import FESeq


def left_padded(history: Ragged, max_len: int) -> Tensor:
    """(B, max_len) ids, 0 before the oldest event."""
    out = history.values.new_zeros(len(history.offsets) - 1, max_len)
    for row, values in zip(out, history.values.split(history.lengths.tolist()), strict=True):
        row[max_len - len(values) :] = values
    return out


class PlainBlock(nn.Module):
    """Post-norm Transformer block: (B, T, D) and a mask (B*H, T, T), True where blocked."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # As by default, with the weights: an explicit softmax over (B*H, T, T).
        mixed, _ = self.attention(x, x, x, attn_mask=mask)
        x = self.norm1(x + mixed)
        out: Tensor = self.norm2(x + self.ffn(x))
        return out


class PlainFESeq(nn.Module):
    """The same model as a `FESeq` with one sequence, crossnetv2, positions and mean pooling.

    Attributes:
        source: the names of its parameters in that `FESeq`, by ours.
    """

    def __init__(self, model: FESeq) -> None:
        super().__init__()
        c, f = model.config, model.features
        assert model.max_len is not None
        self.max_len, self.num_heads = model.max_len, c.num_heads
        (self.sequence,), (self.target,) = c.sequence_field, c.target_field
        self.default = [f.names("categorical").index(n) for n in c.default_field]
        self.tables = nn.ModuleDict(
            {
                n: nn.Embedding(model.embedding.table(n).num_embeddings, c.embedding_dim)
                for n in (*f.names("categorical"), self.sequence)
            }
        )
        self.names = f.names("categorical")
        self.numbers = nn.Parameter(torch.empty(len(f.names("numeric")), c.embedding_dim))
        crossed = c.embedding_dim * (1 + len(self.default))
        self.cross = nn.ModuleList(
            nn.Linear(crossed, crossed) for _ in range(c.seq_feature_interaction_layers)
        )
        self.position = nn.Embedding(self.max_len + 2, c.embedding_dim)
        width = crossed + c.embedding_dim
        self.blocks = nn.ModuleList(
            PlainBlock(width, c.num_heads) for _ in range(c.stacked_transformer_layers)
        )
        head = c.embedding_dim * (len(self.names) - 1 + len(self.numbers)) + width
        sizes = [head, *c.dnn_hidden_units]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.dnn = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        self.source = {name: self._source(name) for name, _ in self.named_parameters()}
        theirs = model.state_dict()
        self.load_state_dict({ours: theirs[name] for ours, name in self.source.items()})

    def _source(self, name: str) -> str:
        first, _, rest = name.partition(".")
        match first:
            case "tables":
                return f"embedding.tables.field:{rest}"
            case "numbers":
                return f"embedding.vectors.{self.numbers.shape[1]}"
            case "cross":
                return f"interaction.block.linears.{rest}"
            case "blocks":
                name = name.replace("in_proj_", "qkv.").replace("out_proj", "out")
                return f"transformer.{name}"
            case "dnn":
                return f"dnn.layers.{rest}"
            case _:
                return name

    def forward(self, batch: Batch) -> Tensor:
        ids = left_padded(batch.sequences[self.sequence], self.max_len)
        columns = [self.tables[n](batch.categorical[:, i]) for i, n in enumerate(self.names)]
        target = columns[self.names.index(self.target)]
        rows, length = len(ids), self.max_len + 1

        x = torch.cat([self.tables[self.sequence](ids), target[:, None]], dim=1)
        default = torch.cat([columns[i] for i in self.default], dim=1)
        x0 = torch.cat([x, default[:, None].repeat(1, length, 1)], dim=2)
        x = x0
        for linear in self.cross:
            x = x + x0 * linear(x)
        age = torch.arange(length - 1, -1, -1, device=ids.device)
        x = torch.cat([x, self.position(age).expand(rows, -1, -1)], dim=2)

        padded = F.pad(ids == 0, (0, 1))  # the target is never padding
        itself = torch.eye(length, dtype=torch.bool, device=ids.device)
        mask = (padded[:, None, :] & ~itself).repeat_interleave(self.num_heads, dim=0)
        for block in self.blocks:
            x = block(x, mask)
        real = (~padded)[:, :, None].to(x.dtype)
        pooled = (x * real).sum(1) / real.sum(1)

        numbers = (batch.numeric[:, :, None] * self.numbers).flatten(1)
        others = [c for n, c in zip(self.names, columns, strict=True) if n != self.target]
        logits: Tensor = self.dnn(torch.cat([*others, numbers, pooled], dim=1)).squeeze(1)
        return logits
