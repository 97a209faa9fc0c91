"""FESeq against a plain computation, row by row, without packing or padding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tossctr.data.batch import Batch, Ragged
from tossctr.errors import UserError
from tossctr.models import MODELS, build_model
from tossctr.models.feseq import FESeq
from tossctr.models.feseq_config import FESeqConfig

BASE = {
    "embedding_dim": 4,
    "target_field": ["item", "shop.id", "price"],
    "sequence_field": ["items", "shops", "prices"],
    "default_field": ["gender", "n1"],
    "target_item_field": ["item", "price"],
    "time_keys": ["now", "then"],
    "num_heads": 2,
    "position_init": "normal",
    "seq_pooling_type": "mean",
    "rel_score_hidden_dim": 8,
    "dnn_hidden_units": [8],
}
WEIGHTED = {"seq_pooling_type": "weighted_sum", "use_item_feature_interaction": True}
VARIANTS = {
    "mean": {},
    "lone names": {
        "target_field": "item",
        "sequence_field": "items",
        "default_field": None,
        "num_heads": 1,
    },
    "sum": {"seq_pooling_type": "sum"},
    "target, causal, two blocks": {
        "seq_pooling_type": "target",
        "use_causal_mask": True,
        "stacked_transformer_layers": 2,
    },
    "concat": {"seq_pooling_type": "concat", "use_time_emb": True},
    "linear time": {"use_time_emb": True, "num_time_embeddings": 300, "use_position_emb": False},
    "log time": {"use_time_emb": True, "num_time_embeddings": 9, "time_log_base": 2},
    "no norm, no residual": {"layer_norm": False, "use_residual": False},
    "no Transformer": {"stacked_transformer_layers": 0},
    "no interaction": {"use_seq_feature_interaction": False},
    "crossnet": {"interaction_layer_name": "crossnet", "seq_feature_interaction_layers": 2},
    "crossnet_mix": {"interaction_layer_name": "crossnet_mix"},
    "autoint": {"interaction_layer_name": "autoint", "seq_feature_interaction_layers": 2},
    "destine": {"interaction_layer_name": "destine"},
    "final": {"interaction_layer_name": "final"},
    "batch norm": {"batch_norm": True, "dnn_activations": "dice"},
    "dot": {**WEIGHTED, "seq_pooling_attn_type": "dot_attention"},
    "bilinear": {**WEIGHTED, "use_pooling_attn_scale": False},
    "din": {**WEIGHTED, "seq_pooling_attn_type": "din_attention"},
    "autoint items": {
        **WEIGHTED,
        "interaction_layer_name": "autoint",
        "item_feature_interaction_layers": 2,
    },
}
# What counts padding or the batch in training: not comparable row by row, nor padded with ragged.
BATCH_STATISTICS = {"final", "batch norm", "din"}


@pytest.fixture
def model_of(features, randomise):
    def make(variant, dtype=torch.float64) -> FESeq:
        config = FESeqConfig(**{**BASE, **VARIANTS[variant]})
        model = FESeq(features, config).to(dtype)
        randomise(model)
        return model.eval() if variant in BATCH_STATISTICS else model.train()

    return make


def double(batch: Batch) -> Batch:
    return replace(batch, numeric=batch.numeric.double())


def row_logit(model: FESeq, batch: Batch, b: int) -> torch.Tensor:
    """The paper, one row: plain matrices of its T events."""
    c, e = model.config, model.embedding
    plain = {n: i for i, n in enumerate(model.features.names("categorical"))}
    numbers = {n: i for i, n in enumerate(model.features.names("numeric"))}

    def field(name, embedding=e):
        if name in plain:
            return embedding.table(name).weight[batch.categorical[b, plain[name]]]
        return embedding.vector(name) * batch.numeric[b, numbers[name]]

    def history(ragged):
        return ragged.values[ragged.offsets[b] : ragged.offsets[b + 1]]

    def sequence(name):
        values = history(batch.sequences[name])
        if name == "prices":
            return values[:, None] * e.vector(name)
        return e.table(name).weight[values]

    x = torch.cat([sequence(n) for n in c.sequence_field], dim=1)
    x = torch.cat([x, torch.cat([field(n) for n in c.target_field])[None]])
    events = len(x)
    for name in c.default_field:
        x = torch.cat([x, field(name).expand(events, -1)], dim=1)
    x = model.interaction(x)  # tested in layers/test_interaction.py
    if c.use_position_emb:
        x = torch.cat([x, model.position.weight[:events].flip(0)], dim=1)
    if c.use_time_emb:
        delta = batch.times["now"][b] - history(batch.time_sequences["then"])
        bucket = [*delta.tolist(), 0.0]
        if c.time_log_base == 2:
            bucket = [max(k for k in range(60) if 2**k <= 1 + d) for d in bucket]
        bucket = [min(int(d), c.num_time_embeddings - 2) for d in bucket]
        x = torch.cat([x, model.time.weight[bucket]], dim=1)
    for block in model.transformer.blocks:
        x = plain_block(block, x, c)
    match c.seq_pooling_type:
        case "mean":
            pooled = x.mean(dim=0)
        case "sum":
            pooled = x.sum(dim=0)
        case "target":
            pooled = x[-1]
        case "concat":
            pooled = torch.cat([x.new_zeros(model.pooling.slots - events, x.shape[1]), x]).flatten()
        case "weighted_sum":
            item = torch.cat([field(n, model.item_embedding) for n in c.target_item_field])
            pooled = plain_weighted_sum(model, x, model.item_interaction(item[None])[0])
    head = [field(n) for n in model.head_field]
    return model.dnn(torch.cat([*head, pooled])[None]).squeeze()


def plain_block(block, x, c):
    attention = nn.MultiheadAttention(x.shape[1], c.num_heads, dtype=x.dtype)
    weights = {
        "in_proj_weight": block.attention.qkv.weight,
        "in_proj_bias": block.attention.qkv.bias,
        "out_proj.weight": block.attention.out.weight,
        "out_proj.bias": block.attention.out.bias,
    }
    blocked = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) if c.use_causal_mask else None
    s, _ = torch.func.functional_call(attention, weights, (x, x, x), {"attn_mask": blocked})
    s = block.norm1(s + x if c.use_residual else s)
    first, _, second = block.ffn
    out = second(torch.where((h := first(s)) > 0, h, 0.01 * h))
    return block.norm2(out + s if c.use_residual else out)


def plain_weighted_sum(model, x, item):
    c, p = model.config, model.attention_pooling

    def prelu(h):
        return torch.where(h > 0, h, p.activation.weight * h)

    q = prelu(p.query.weight @ item)
    k, v = prelu(x @ p.key.weight.T), prelu(x @ p.value.weight.T)
    scale = len(q) ** 0.5 if c.use_pooling_attn_scale else 1
    match c.seq_pooling_attn_type:
        case "dot_attention":
            scores = k @ q / scale
        case "bilinear_attention":
            scores = k @ p.bilinear @ q / scale
        case "din_attention":
            scores = p.relevance(torch.cat([q + 0 * k, k, q - k, q * k], dim=1))[:, 0]
    return prelu(p.output.weight @ (scores.softmax(0) @ v) + p.output.bias)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_match_the_plain_computation(model_of, batch, variant):
    model, batch = model_of(variant), double(batch)
    weight = torch.linspace(-1, 1, len(batch), dtype=torch.float64)
    parameters = dict(model.named_parameters())

    logits = model(batch)
    gradients = torch.autograd.grad(logits @ weight, list(parameters.values()))
    plain = torch.stack([row_logit(model, batch, b) for b in range(len(batch))])
    expected = torch.autograd.grad(plain @ weight, list(parameters.values()), allow_unused=True)

    torch.testing.assert_close(logits, plain)
    for name, found, wanted in zip(parameters, gradients, expected, strict=True):
        torch.testing.assert_close(found, 0 * found if wanted is None else wanted, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_are_independent_of_order_and_batch(model_of, batch, variant):
    model = model_of(variant, torch.float32).eval()
    logits = model(batch)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    torch.testing.assert_close(model(reordered(batch, order)), logits[order], atol=1e-6, rtol=1e-6)
    parts = [model(part) for part in batch.split(8)]
    assert len(parts) > 2
    torch.testing.assert_close(torch.cat(parts), logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "concat"])
def test_padded_and_packed_execution_agree(model_of, batch, features, variant):
    model, batch = model_of(variant), double(batch)
    lengths = batch.sequences["items"].lengths
    padded = left_padded(batch, features["items"].max_len)
    torch.testing.assert_close(model(padded, lengths), model(batch))


def reordered(batch: Batch, order: torch.Tensor) -> Batch:
    def ragged(x: Ragged) -> Ragged:
        rows = [x.values[x.offsets[b] : x.offsets[b + 1]] for b in order]
        offsets = torch.tensor([0, *(len(r) for r in rows)]).cumsum(0)
        return Ragged(torch.cat(rows), offsets, x.max_length)

    return Batch(
        categorical=batch.categorical[order],
        numeric=batch.numeric[order],
        sequences={n: ragged(s) for n, s in batch.sequences.items()},
        times={n: t[order] for n, t in batch.times.items()},
        time_sequences={n: ragged(s) for n, s in batch.time_sequences.items()},
    )


def left_padded(batch: Batch, length: int) -> Batch:
    def pad(x: Ragged, value: float) -> Ragged:
        slots = x.values.new_full((len(batch), length), value)
        for b in range(len(batch)):
            row = x.values[x.offsets[b] : x.offsets[b + 1]]
            slots[b, length - len(row) :] = row
        return Ragged(slots.flatten(), torch.arange(len(batch) + 1) * length, length)

    return replace(
        batch,
        sequences={n: pad(s, -1 if n == "prices" else 0) for n, s in batch.sequences.items()},
        time_sequences={n: pad(s, 0) for n, s in batch.time_sequences.items()},
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(features, batch, variant):
    options = {**BASE, **VARIANTS[variant], "net_dropout": 0.1, "attention_dropout": 0.1}
    model = build_model("FESeq", features, FESeqConfig(**options, fi_dropout=0.1), seed=0)
    logits = model.train()(batch)
    assert logits.shape == (len(batch),)
    nn.functional.binary_cross_entropy_with_logits(logits, batch.label).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_batch_without_histories(model_of, batch_of):
    model, batch = model_of("bilinear"), double(batch_of(0, 0))
    plain = torch.stack([row_logit(model, batch, b) for b in range(2)])
    torch.testing.assert_close(model(batch), plain)


@pytest.mark.parametrize("variant", ["final", "din", "batch norm", "autoint items"])
def test_a_batch_of_one_row_trains(features, batch_of, variant):
    options = {**BASE, **VARIANTS[variant]}
    if variant == "final":
        options |= WEIGHTED  # interacting items: one row there has no batch statistics
    model = build_model("FESeq", features, FESeqConfig(**options), seed=0).train()
    logit = model(batch_of(0))
    logit.sum().backward()
    assert torch.isfinite(logit).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"default_field": ["gendr"]}, "default_field.*unknown.*gendr.*gender"),
        ({"target_field": ["item", "items", "price"]}, "target_field.*sequence feature.*items"),
        ({"sequence_field": ["items"]}, "equally many fields"),
        ({"num_heads": 5}, "num_heads.*not divisible"),
        ({"use_item_feature_interaction": True}, "weighted_sum"),
        ({"use_time_emb": True, "time_keys": []}, "time_keys"),
        ({"use_time_emb": True, "time_keys": ["now", "items"]}, "time_keys.*items"),
        ({"time_log_base": 1}, "time_log_base"),
        ({"dnn_activations": "rellu"}, "activation.*rellu"),
    ],
)
def test_contradictions_are_refused(features, options, message):
    with pytest.raises(UserError, match=message):
        FESeq(features, FESeqConfig(**{**BASE, **options}))


def test_positions_need_max_len(features):
    fields = [f.model_copy(update={"max_len": None}) for f in features.fields]
    endless = features.model_copy(update={"fields": tuple(fields)})
    with pytest.raises(UserError, match="max_len"):
        FESeq(endless, FESeqConfig(**BASE))
    FESeq(endless, FESeqConfig(**BASE, use_position_emb=False))


def test_histories_of_unequal_lengths_are_refused(model_of, batch):
    items = batch.sequences["items"]
    offsets = items.offsets.clone()
    offsets[3:5] += 1
    wrong = {**batch.sequences, "shops": Ragged(items.values, offsets, 6)}
    with pytest.raises(UserError, match="shops, row 2: has 2 events where items has 1"):
        model_of("mean", torch.float32)(replace(batch, sequences=wrong))


def test_a_history_longer_than_max_len_is_refused(model_of, batch_of):
    with pytest.raises(UserError, match=r"has 7 events.*max_len 6"):
        model_of("mean", torch.float32)(batch_of(2, 7))


def test_regularizers_cover_each_parameter_once(features):
    options = {**BASE, **VARIANTS["bilinear"], "use_time_emb": True}
    model = FESeq(features, FESeqConfig(**options))
    embedded = {id(p) for p in model.embedding_parameters()}
    names = {n.split(".")[0] for n, p in model.named_parameters() if id(p) in embedded}
    assert names == {"embedding", "position", "time", "item_embedding"}
    others = {id(p) for p in model.other_parameters()}
    assert not embedded & others
    assert embedded | others == {id(p) for p in model.parameters()}


def test_initial_weights_follow_the_seed_and_the_specification(features):
    config = FESeqConfig(**BASE)
    a, b = (build_model("FESeq", features, config, seed=s).state_dict() for s in (7, 7))
    assert all(torch.equal(a[name], b[name]) for name in a)
    c = build_model("FESeq", features, config, seed=8).state_dict()
    table = "embedding.tables.field:item.weight"
    assert not torch.equal(a[table], c[table])
    assert a[table][0].eq(0).all()
    assert 0.5e-4 < a[table][1:].std() < 2e-4
    assert 0.5e-4 < a["position.weight"][:-1].std() < 2e-4
    assert a["dnn.layers.0.bias"].eq(0).all()


def test_defaults_use_weighted_sum_and_positions(features):
    fields = {"target_field": ["item", "shop.id"], "sequence_field": ["items", "shops"]}
    left_out = build_model("FESeq", features, FESeqConfig(**fields, num_heads=1), seed=3)
    said = FESeqConfig(
        **fields, num_heads=1, position_init="sinusoidal", seq_pooling_type="weighted_sum",
        target_item_field=["item", "shop.id"],
    )  # fmt: skip
    written = build_model("FESeq", features, said, seed=3).state_dict()
    for name, tensor in left_out.state_dict().items():
        torch.testing.assert_close(tensor, written[name], rtol=0, atol=0)


def test_the_registry_has_feseq():
    assert MODELS["FESeq"].Config is FESeqConfig


def test_sinusoidal_positions_distinguish_events_initially(features) -> None:
    told = FESeq(features, FESeqConfig(**{**BASE, "position_init": "sinusoidal"})).position.weight
    drawn = FESeq(features, FESeqConfig(**BASE)).position.weight
    assert told.shape == drawn.shape  # the same weights can be loaded into both
    gap = torch.cdist(told.detach()[:4], told.detach()[:4])
    assert gap[~torch.eye(4, dtype=torch.bool)].min() > 0.5
    assert drawn.abs().max() < 1e-3
