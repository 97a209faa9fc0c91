import pytest
import torch

from tossctr.models.explain import explain
from tossctr.models.feseq import FESeq
from tossctr.models.feseq_config import FESeqConfig

OPTIONS = {
    "embedding_dim": 4,
    "target_field": ["item", "shop.id"],
    "sequence_field": ["items", "shops"],
    "default_field": ["gender"],
    "target_item_field": "item",
    "seq_pooling_type": "mean",
    "stacked_transformer_layers": 2,
    "dnn_hidden_units": [6],
    "attention_dropout": 0.5,
}
FIELDS = ("items", "shops", "gender")


@pytest.fixture
def model_of(features, randomise):
    def make(**options):
        model = FESeq(features, FESeqConfig(**{**OPTIONS, **options}))
        randomise(model)
        return model.train()

    return make


def test_attention_weights_reproduce_the_output(model_of, batch):
    model = model_of(seq_pooling_type="target")
    given = {}
    block = model.transformer.blocks[0]
    hook = block.register_forward_hook(lambda _, args, out: given.update(x=args[0]))
    found = explain(model, batch)
    hook.remove()
    attention = block.attention
    assert found.fields == FIELDS
    assert found.events.count == sum((0, 6, 1, 3, 0, 5, 3)) + 7
    assert [a.shape for a in found.attention] == [(25, 2), (25, 2)]
    rows = found.attention[0].split(found.events.lengths.tolist())
    torch.testing.assert_close(torch.stack([r.sum(0) for r in rows]), torch.ones(7, 2))
    with torch.no_grad():
        mixed_by_all = attention.eval()(given["x"], found.events, None)
        values = attention.qkv(given["x"]).chunk(3, dim=1)[2].unflatten(1, (2, -1))
        mixed = found.attention[0][:, :, None] * values
        by_row = mixed.flatten(1).split(found.events.lengths.tolist())
        expected = attention.out(torch.stack([r.sum(0) for r in by_row]))
    torch.testing.assert_close(mixed_by_all[found.events.last], expected)


def test_explaining_does_not_change_the_model(model_of, batch):
    model = model_of(interaction_layer_name="autoint")
    found = explain(model, batch)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(found.logits, model.eval()(batch))
    assert not found.logits.requires_grad
    assert found.pooling is None


@pytest.mark.parametrize("name", ["autoint", "destine"])
def test_field_weights_have_one_entry_per_pair(model_of, batch, name):
    model = model_of(interaction_layer_name=name, seq_feature_interaction_layers=2)
    found = explain(model, batch)
    assert [w.shape for w in found.interaction] == [(25, 3, 3)] * 2
    total = 1 if name == "autoint" else 2  # destine adds unary weights, which sum to 1 too
    torch.testing.assert_close(found.interaction[0].sum(2), torch.full((25, 3), float(total)))


def test_item_interaction_is_omitted_and_pooling_weights_are_returned(model_of, batch):
    model = model_of(
        interaction_layer_name="autoint",
        seq_pooling_type="weighted_sum",
        use_item_feature_interaction=True,
        item_feature_interaction_layers=1,
    )
    found = explain(model, batch)
    assert [w.shape for w in found.interaction] == [(25, 3, 3)]
    rows = found.pooling.split(found.events.lengths.tolist())
    torch.testing.assert_close(torch.stack([r.sum() for r in rows]), torch.ones(7))


def test_cross_matrix_norms_show_the_crossed_pairs(model_of, batch):
    model = model_of()
    with torch.no_grad():
        matrix = model.interaction.block.linears[0].weight.zero_()
        matrix[0:4, 8:12] = 3.0  # items crossed with gender
    (norms,) = explain(model, batch).interaction
    expected = torch.zeros(3, 3)
    expected[FIELDS.index("items"), FIELDS.index("gender")] = 3.0
    torch.testing.assert_close(norms, expected)
