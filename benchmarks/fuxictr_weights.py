"""Convert weights from and to the public FESeq implementation, a fork of FuxiCTR.

| public name | ours |
| --- | --- |
| `embedding_layer.embedding_layers.F.weight`, ids | `embedding.tables.field:F.weight` |
| `embedding_layer.embedding_layers.F.weight` (d, 1), numbers | a row of `embedding.vectors.d` |
| `output_emb_layer.F.weight` | the same under `item_embedding` |
| `pos_embedding_layer`, `time_embedding_layer` | `position`, `time` |
| `transformer_encoders.0.transformer_blocks.i` | `transformer.blocks.i` |
| `... .attention.in_proj_*`, `out_proj` | `... .attention.qkv.*`, `out` |
| `... .layer_norm1`, `layer_norm2` | `... .norm1`, `norm2` |
| `seq_feature_interaction.feat_interaction_layers` | `interaction.block` |
| `item_feature_interaction.feat_interaction_layers` | `item_interaction.block` |
| crossnet: `cross_net.i.weight`, `cross_net.i.bias` | `weights.i`, `biases.i` |
| crossnetv2: `cross_layers.i` | `linears.i` |
| crossnet_mix: `U_list.i`, `V_list.i`, `C_list.i` | `u.i`, `v.i`, `c.i` |
| crossnet_mix: `bias.i` (width, 1) | `biases.i` |
| crossnet_mix: `gating.e.weight` | row e of `gates.weight` |
| autoint: `i.W_q`, `W_k`, `W_v`, `layer_norm` | `i.query`, `key`, `value`, `norm` |
| destine: also `i.W_unary`, `i.W_res` | `i.unary`, `i.residual` |
| final: `layer.i.linear`, `norm.i` | `linears.i`, `norms.i` |
| `pooling_layer` | `attention_pooling` |
| `... .W_q`, `W_k`, `W_v`, `W_kernel` | `... .query`, `key`, `value`, `bilinear` |
| `... .ffn.0`, `activation`, `ffn.1` (the same again) | `... .output`, `activation` |
| `... .attn_mlp.mlp` | `... .relevance.layers` |
| `dnn.mlp` | `dnn.layers` |
| Dice: `bn` | `norm` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tossctr.errors import UserError
from tossctr.models.feseq import FESeq
from tossctr.models.layers.embedding import FieldEmbedding

_INTERACTION = "feat_interaction_layers."
_PREFIXES = {
    "position.": "pos_embedding_layer.",
    "time.": "time_embedding_layer.",
    "transformer.": "transformer_encoders.0.",
    "interaction.block.": f"seq_feature_interaction.{_INTERACTION}",
    "item_interaction.block.": f"item_feature_interaction.{_INTERACTION}",
    "attention_pooling.": "pooling_layer.",
    "dnn.": "dnn.",
}
_TRANSFORMER = (
    (r"^blocks\.", "transformer_blocks."),
    (r"\.qkv\.", ".in_proj_"),
    (r"\.out\.", ".out_proj."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
)
_MLP = ((r"layers\.", "mlp."), (r"(mlp\.\d+)\.norm\.", r"\1.bn."))
_POOLING = (
    *_MLP,
    (r"^query\.", "W_q."),
    (r"^key\.", "W_k."),
    (r"^value\.", "W_v."),
    (r"^bilinear$", "W_kernel"),
    (r"^output\.", "ffn.0."),
    (r"^relevance\.", "attn_mlp."),
)
_BLOCKS: dict[str, tuple[tuple[str, str], ...]] = {
    "crossnet": (
        (r"^weights\.(\d+)\.", r"cross_net.\1.weight."),
        (r"^biases\.(\d+)$", r"cross_net.\1.bias"),
    ),
    "crossnetv2": ((r"^linears\.", "cross_layers."),),
    "crossnet_mix": (
        (r"^u\.", "U_list."),
        (r"^v\.", "V_list."),
        (r"^c\.", "C_list."),
        (r"^biases\.", "bias."),
    ),
    "autoint": (
        (r"\.query\.", ".W_q."),
        (r"\.key\.", ".W_k."),
        (r"\.value\.", ".W_v."),
        (r"\.norm\.", ".layer_norm."),
    ),
    "destine": (
        (r"\.query\.", ".W_q."),
        (r"\.key\.", ".W_k."),
        (r"\.value\.", ".W_v."),
        (r"\.unary\.", ".W_unary."),
        (r"\.residual\.", ".W_res."),
    ),
    "final": ((r"^linears\.(\d+)\.", r"layer.\1.linear."), (r"^norms\.", "norm.")),
    "none": (),
}


@dataclass(frozen=True)
class TensorSlice:
    """The part of our model that a public weight corresponds to: a tensor by name, or a row of
    it."""

    name: str
    row: int | None = None

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        tensor = tensors[self.name]
        return tensor if self.row is None else tensor[self.row]


def name_map(model: FESeq) -> dict[str, TensorSlice]:
    """The corresponding tensor of each public name of this model's weights.

    Fields that share a table have separate names, as in a state dict.
    """
    places = _field_places(model.embedding, "embedding", "embedding_layer.embedding_layers")
    if model.config.seq_pooling_type == "weighted_sum":
        places |= _field_places(model.item_embedding, "item_embedding", "output_emb_layer")
    for name, tensor in model.state_dict().items():
        ours = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if ours is None:
            continue  # the embeddings, done above
        rest, public = name.removeprefix(ours), _PREFIXES[ours]
        if rest == "gates.weight":
            places |= {
                f"{public}gating.{e}.weight": TensorSlice(name, e) for e in range(len(tensor))
            }
            continue
        for pattern, replacement in _renames(ours, model):
            rest = re.sub(pattern, replacement, rest)
        places[public + rest] = TensorSlice(name)
        if public + rest == "pooling_layer.activation.weight":
            places["pooling_layer.ffn.1.weight"] = TensorSlice(name)
    return places


def load_public(model: FESeq, weights: Mapping[str, Tensor]) -> None:
    """Load the public implementation's state dict into a model with the same options.

    Raises:
        UserError: a name that the model lacks, a weight of another shape, a parameter left out,
            or two values for a table that this model shares.
    """
    places, ours = name_map(model), model.state_dict()
    filled: dict[TensorSlice, str] = {}
    for public, value in weights.items():
        place = places.get(public)
        if place is None:
            raise UserError(
                "is a weight that this model does not have",
                key=public,
                remedy="give the model the options that the weights were trained with",
            )
        target = place.of(ours)
        if value.numel() != target.numel():
            raise UserError(
                f"has shape {tuple(value.shape)}, the model {tuple(target.shape)}", key=public
            )
        value = value.reshape(target.shape).to(target)
        if place in filled and not torch.equal(value, target):
            raise UserError(
                f"differs from {filled[place]}, with which it shares its table", key=public
            )
        target.copy_(value)
        filled[place] = public
    missing = [public for public, place in places.items() if place not in filled]
    if missing:
        raise UserError("is missing from the weights", key=missing[0])


def to_public(model: FESeq, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors (weights or gradients) from our names to the public ones.

    Shapes stay ours; missing tensors are skipped.
    """
    return {
        public: place.of(tensors)
        for public, place in name_map(model).items()
        if place.name in tensors
    }


def _field_places(embedding: FieldEmbedding, ours: str, public: str) -> dict[str, TensorSlice]:
    return {
        f"{public}.{field}.weight": TensorSlice(f"{ours}.{name}", row)
        for field, (name, row) in embedding.parameter_of().items()
    }


def _renames(ours: str, model: FESeq) -> tuple[tuple[str, str], ...]:
    match ours:
        case "transformer.":
            return _TRANSFORMER
        case "interaction.block." | "item_interaction.block.":
            return _BLOCKS[model.config.interaction_layer_name]
        case "attention_pooling.":
            return _POOLING
        case "dnn.":
            return _MLP
        case _:
            return ()
