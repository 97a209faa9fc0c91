"""Each baseline model against a plain computation, row by row."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tossctr.data.batch import Ragged
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.models import MODELS, build_model

PAIRS = {"target_field": ["item", "price"], "sequence_field": ["items", "prices"]}
CASES = {
    "FESeq": ("FESeq", {**PAIRS, "default_field": "gender", "dnn_hidden_units": [6]}),
    "BST": (
        "BST",
        {
            "bst_target_field": [["item", "price"], "shop.id"],
            "bst_sequence_field": [["items", "prices"], "shops"],
            "dnn_hidden_units": [6],
        },
    ),
    "BST concat": (
        "BST",
        {
            "bst_target_field": "item",
            "bst_sequence_field": "items",
            "seq_pooling_type": "concat",
            "use_position_emb": True,
            "use_causal_mask": True,
            "dnn_hidden_units": [6],
        },
    ),
    "DIN": (
        "DIN",
        {
            "din_target_field": [["item", "price"], "shop.id"],
            "din_sequence_field": [["items", "prices"], "shops"],
            "attention_hidden_units": [5],
            "attention_hidden_activations": "tanh",
            "dnn_hidden_units": [6],
        },
    ),
    "DIN softmax": (
        "DIN",
        {
            "din_target_field": "item",
            "din_sequence_field": "items",
            "din_use_softmax": True,
            "attention_hidden_units": [5],
            "attention_hidden_activations": "tanh",
            "attention_output_activation": "sigmoid",
            "dnn_hidden_units": [6],
        },
    ),
    "SASRec": ("SASRec", {**PAIRS, "dnn_hidden_units": [6]}),
    "DeepFM": ("DeepFM", {"hidden_units": [6]}),
    "AutoInt": ("AutoInt", {"attention_dim": 6, "num_heads": 2, "dnn_hidden_units": [6]}),
    "AutoInt wide": (
        "AutoInt",
        {"attention_layers": 1, "use_wide": True, "dnn_hidden_units": [], "use_scale": True},
    ),
    "DCNv2": ("DCNv2", {"parallel_dnn_hidden_units": [6]}),
    "DCNv2 crosses": ("DCNv2", {"model_structure": "crossnet_only", "num_cross_layers": 2}),
    "DCNv2 stacked": (
        "DCNv2",
        {
            "model_structure": "stacked_parallel",
            "use_low_rank_mixture": True,
            "low_rank": 3,
            "num_experts": 2,
            "stacked_dnn_hidden_units": [5],
            "parallel_dnn_hidden_units": [6],
        },
    ),
    "DCNv2Seq": (
        "DCNv2Seq",
        {
            "target_field": ["item", "gender", "price"],
            "sequence_field": ["items", "shops"],
            "attention_dim": 6,
            "num_heads": 2,
            "parallel_dnn_hidden_units": [6],
        },
    ),
}


@pytest.fixture
def make(features, randomise):
    def build(case, dtype=torch.float64, **more):
        name, options = CASES[case]
        model = build_model(name, features, MODELS[name].Config(embedding_dim=4, **options, **more))
        randomise(model)
        return model.to(dtype)

    return build


class Row:
    """One row of a batch, embedded by plain look-ups."""

    def __init__(self, features: FeatureMap, batch, b):
        self.features, self.batch, self.b = features, batch, b

    def column(self, embedding, name):
        if name in (ids := self.features.names("categorical")):
            return embedding.table(name).weight[self.batch.categorical[self.b, ids.index(name)]]
        index = self.features.names("numeric").index(name)
        return embedding.vector(name) * self.batch.numeric[self.b, index]

    def columns(self, embedding, names=None):
        names = self.features.names("categorical", "numeric") if names is None else names
        return torch.cat([self.column(embedding, name) for name in names])

    def history(self, embedding, names):
        parts = []
        for name in names:
            ragged = self.batch.sequences[name]
            values = ragged.values[ragged.offsets[self.b] : ragged.offsets[self.b + 1]]
            if self.features[name].type == "sequence":
                parts.append(embedding.table(name).weight[values])
            else:
                parts.append(values[:, None] * embedding.vector(name))
        return torch.cat(parts, dim=1)

    def all_fields(self, tabular):
        fields = [self.column(tabular.fields, n) for n in tabular.columns]
        for name in tabular.sequences:
            events = self.history(tabular.fields, [name])
            fields.append(events.mean(0) if len(events) else events.sum(0))
        return torch.stack(fields)


def plain_transformer(transformer, x, causal):
    for block in transformer.blocks:
        attention = nn.MultiheadAttention(x.shape[1], transformer.num_heads, dtype=x.dtype)
        weights = {
            "in_proj_weight": block.attention.qkv.weight,
            "in_proj_bias": block.attention.qkv.bias,
            "out_proj.weight": block.attention.out.weight,
            "out_proj.bias": block.attention.out.bias,
        }
        blocked = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) if causal else None
        mixed, _ = torch.func.functional_call(attention, weights, (x, x, x), {"attn_mask": blocked})
        x = block.norm1(mixed + x)
        x = block.norm2(block.ffn(x) + x)
    return x


def bst(model, row):
    parts = [row.columns(model.embedding)]
    for i, (targets, sequences) in enumerate(model.pairs):
        x = row.history(model.embedding, sequences)
        x = torch.cat([x, row.columns(model.embedding, targets)[None]])
        x = torch.cat([x, model.positions[i].weight[: len(x)].flip(0)], dim=1)
        concat = model.config.seq_pooling_type == "concat"
        x = plain_transformer(model.transformers[i], x, model.config.use_causal_mask)
        if concat:
            parts += [x.new_zeros((7 - len(x)) * x.shape[1]), x.flatten()]
        else:
            parts.append(x.mean(0))
    return model.dnn(torch.cat(parts)[None]).squeeze()


def din(model, row):
    parts = [row.columns(model.embedding)]
    for unit, (targets, sequences) in zip(model.attention, model.pairs, strict=True):
        q = row.columns(model.embedding, targets)
        pooled = torch.zeros_like(q)
        events = row.history(model.embedding, sequences)
        weights = [
            unit.activation(unit.mlp(torch.cat([q, e, q - e, q * e])[None])).squeeze()
            for e in events
        ]
        if model.config.din_use_softmax and weights:
            weights = torch.stack(weights).softmax(0)
        for weight, event in zip(weights, events, strict=True):
            pooled = pooled + weight * event
        parts.append(pooled)
    return model.dnn(torch.cat(parts)[None]).squeeze()


def sasrec(model, row):
    c = model.config
    x = row.history(model.embedding, c.sequence_field)
    x = torch.cat([x, row.columns(model.embedding, c.target_field)[None]])
    x = plain_transformer(model.transformer, x + model.position.weight[: len(x)].flip(0), True)
    head = row.columns(model.embedding, model.head_field)
    return model.dnn(torch.cat([head, x[-1]])[None]).squeeze()


def deepfm(model, row):
    fields = row.all_fields(model.embedding)
    pairs = sum(fields[i] @ fields[j] for i in range(len(fields)) for j in range(i))
    linear = row.all_fields(model.weights).sum()
    return model.bias + linear + pairs + model.mlp(fields.flatten()[None]).squeeze()


def autoint(model, row):
    x = row.all_fields(model.embedding)
    out = model.output(model.interaction(x[None]).flatten()[None]).squeeze()
    if model.dnn is not None:
        out = out + model.dnn(x.flatten()[None]).squeeze()
    return out if model.weights is None else out + row.all_fields(model.weights).sum()


def crossed(head, x, structure):
    cross = head.cross(x[None])[0]
    match structure:
        case "crossnet_only":
            out = cross
        case "parallel":
            out = torch.cat([cross, head.parallel(x[None])[0]])
        case "stacked_parallel":
            out = torch.cat([head.stacked(cross[None])[0], head.parallel(x[None])[0]])
    return head.output(out[None]).squeeze()


def dcnv2(model, row):
    x = row.all_fields(model.embedding).flatten()
    return crossed(model.head, x, model.config.model_structure)


def dcnv2seq(model, row):
    c, a = model.config, model.attention
    x = row.history(model.embedding, c.sequence_field)
    x = torch.cat([x, model.position.weight[: len(x)].flip(0)], dim=1)
    q = a.query(row.columns(model.embedding, c.target_field))
    heads = []
    for h in q.new_ones(c.attention_dim).bool().view(c.num_heads, -1).nonzero().split(3):
        columns = slice(int(h[0, 0]) * 3, int(h[0, 0]) * 3 + 3)
        weights = (a.key(x)[:, columns] @ q[columns] / 3**0.5).softmax(0)
        heads.append(weights @ a.value(x)[:, columns])
    pooled = a.output(torch.cat(heads))
    return crossed(model.head, torch.cat([row.columns(model.embedding), pooled]), c.model_structure)


PLAIN = {
    "BST": bst,
    "DIN": din,
    "SASRec": sasrec,
    "DeepFM": deepfm,
    "AutoInt": autoint,
    "DCNv2": dcnv2,
    "DCNv2Seq": dcnv2seq,
}


@pytest.mark.parametrize("case", [c for c in CASES if c != "FESeq"])
def test_logits_match_the_plain_computation(make, features, batch, case):
    model = make(case)
    batch = replace(batch, numeric=batch.numeric.double())
    plain = PLAIN[CASES[case][0]]
    expected = [plain(model, Row(features, batch, b)) for b in range(len(batch))]
    torch.testing.assert_close(model(batch), torch.stack(expected))


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_a_gradient_and_rows_are_independent(make, batch, case):
    model = make(case, torch.float32)
    logits = model(batch)
    assert logits.shape == (len(batch),)
    (logits * torch.linspace(-1, 1, len(batch))).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.ne(0).any(), name
    parts = torch.cat([model(part) for part in batch.split(8)])
    torch.testing.assert_close(parts, logits, atol=2e-6, rtol=1e-6)
    alone = model(batch.split(1)[0])
    torch.testing.assert_close(alone, logits[:1], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_bf16_logits_have_as_many_distinct_values_as_float32(make, batch_of, case):
    model = make(case, torch.float32).eval()
    batch = batch_of(*[3, 0, 6, 1] * 200)
    with torch.no_grad():
        full = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch)
    assert half.dtype == torch.float32
    assert len(half.unique()) > 0.95 * len(full.unique())  # rounded to bf16, about 20 of them
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * float(full.std()))
    assert float(torch.corrcoef(torch.stack([half, full]))[0, 1]) > 0.99


@pytest.mark.parametrize("case", CASES)
def test_a_step_lowers_the_loss(features, batch, case):
    name, options = CASES[case]
    config = MODELS[name].Config(embedding_dim=4, **options)
    model = build_model(name, features, config, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("BST", {"bst_target_field": ["item", "price"]}, "bst_target_field.*group by group"),
        ("BST", {"bst_target_field": [["item", "prise"], "shop.id"]}, "prise.*price"),
        ("BST", {"num_heads": 5}, "num_heads"),
        ("DIN", {"din_sequence_field": [["items", "prices"], "item"]}, "din_sequence_field.*item"),
        ("DIN", {"attention_output_activation": "softplus"}, "softplus"),
        ("SASRec", {"target_field": "item"}, "target_field"),
        ("SASRec", {"num_heads": 3}, "num_heads"),
        ("DCNv2", {"model_structure": "stacked"}, "stacked_dnn_hidden_units"),
        ("DCNv2Seq", {"num_heads": 4}, "attention_dim 6.*num_heads"),
        ("DCNv2Seq", {"sequence_field": ["seq"]}, "sequence_field.*seq"),
        ("AutoInt", {"num_heads": 4}, "attention_dim 6.*num_heads"),
    ],
)
def test_contradictions_are_refused(features, case, options, message):
    name, base = CASES[case]
    with pytest.raises(UserError, match=message):
        MODELS[name](features, MODELS[name].Config(embedding_dim=4, **{**base, **options}))


@pytest.mark.parametrize("name", ["DeepFM", "AutoInt"])
def test_vector_wise_models_need_equal_widths(features, name):
    fields = [features.fields[0].model_copy(update={"embedding_dim": 2}), *features.fields[1:]]
    uneven = features.model_copy(update={"fields": tuple(fields)})
    with pytest.raises(UserError, match=f"{name} needs fields of one embedding_dim"):
        MODELS[name](uneven, MODELS[name].Config(embedding_dim=4))


@pytest.mark.parametrize("case", ["BST", "SASRec", "DCNv2Seq"])
def test_positions_need_max_len_and_refuse_longer_histories(make, features, batch_of, case):
    with pytest.raises(UserError, match=r"has 7 events.*max_len 6"):
        make(case, torch.float32)(batch_of(1, 7))
    fields = [f.model_copy(update={"max_len": None}) for f in features.fields]
    name, options = CASES[case]
    endless = features.model_copy(update={"fields": tuple(fields)})
    with pytest.raises(UserError, match="max_len"):
        MODELS[name](endless, MODELS[name].Config(embedding_dim=4, **options))


def test_feature_encoder_selects_sum_pooling(features, batch, randomise):
    fields = [
        f.model_copy(update={"feature_encoder": "layers.MaskedSumPooling()"})
        if f.name == "shops"
        else f
        for f in features.fields
    ]
    summing = features.model_copy(update={"fields": tuple(fields)})
    models = [
        MODELS["DCNv2"](f, MODELS["DCNv2"].Config(embedding_dim=4, model_structure="crossnet_only"))
        for f in (features, summing)
    ]
    for model in models:
        randomise(model)
    mean, total = (m.embedding(batch) for m in models)
    at = sum(models[0].embedding.widths[:-2])  # items, shops, prices come last
    lengths = batch.sequences["shops"].lengths[:, None]
    torch.testing.assert_close(total[:, at : at + 4], mean[:, at : at + 4] * lengths)
    torch.testing.assert_close(total[:, :at], mean[:, :at])


def test_unequal_histories_of_a_group_are_refused(make, batch):
    items = batch.sequences["items"]
    wrong = Ragged(items.values, torch.tensor([0, 1, 6, 7, 10, 10, 15, 18]), 6)
    batch = replace(batch, sequences={**batch.sequences, "prices": wrong})
    with pytest.raises(UserError, match="prices, row 0: has 1 events where items has 0"):
        make("DIN", torch.float32)(batch)
