import pytest
import torch

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field
from tossctr.errors import UserError
from tossctr.models.layers.embedding import FieldEmbedding


def feature_map(*fields):
    return FeatureMap(dataset_id="t", label="y", fields=fields)


FEATURES = feature_map(
    Field(name="a", type="categorical", vocab_size=5),
    Field(name="x", type="numeric"),
    Field(name="y.z", type="numeric"),
    Field(name="w", type="numeric", embedding_dim=2),
    Field(name="items", type="categorical", vocab_size=6, embedding_dim=3),  # a ModuleDict method
    Field(name="h", type="sequence", vocab_size=5, share_embedding="a"),
    Field(name="xs", type="numeric_sequence", share_embedding="x"),
)
BATCH = Batch(
    categorical=torch.tensor([[1, 5], [0, 2]]),
    numeric=torch.tensor([[0.5, 2.0, -1.0], [0.0, 1.0, 3.0]]),
    sequences={
        "h": Ragged(torch.tensor([4, 0, 1]), torch.tensor([0, 2, 3]), 2),
        "xs": Ragged(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0, 2, 3]), 2),
    },
)
ALL = ("a", "x", "y.z", "w", "items", "h", "xs")


def test_columns_are_concatenated_in_the_order_named():
    e = FieldEmbedding(FEATURES, ALL, 4)
    names = ("w", "items", "y.z", "x", "a")
    assert e.widths(names) == [2, 3, 4, 4, 4]
    for b in range(2):
        w, items, yz, x, a = e.rows(BATCH, names)[b].split([2, 3, 4, 4, 4])
        torch.testing.assert_close(w, BATCH.numeric[b, 2] * e.vector("w"))
        torch.testing.assert_close(yz, BATCH.numeric[b, 1] * e.vector("y.z"))
        torch.testing.assert_close(x, BATCH.numeric[b, 0] * e.vector("x"))
        torch.testing.assert_close(items, e.table("items").weight[BATCH.categorical[b, 1]])
        torch.testing.assert_close(a, e.table("a").weight[BATCH.categorical[b, 0]])
    assert e.rows(BATCH, ()).shape == (2, 0)


def test_sequences_use_the_shared_table_or_vector():
    e = FieldEmbedding(FEATURES, ALL, 4)
    h, xs = e.events(BATCH, ("h", "xs")).split(4, dim=1)
    torch.testing.assert_close(h, e.table("a").weight[[4, 0, 1]])
    torch.testing.assert_close(xs[1], -e.vector("x"))
    assert e.table("h") is e.table("a")
    assert len(e.tables) == 2
    apart = FieldEmbedding(FEATURES, ALL, 4, share=False)
    assert apart.table("h") is not apart.table("a")


def test_the_padding_row_stays_zero():
    e = FieldEmbedding(FEATURES, ALL, 4)
    (e.events(BATCH, ("h",)).sum() + e.rows(BATCH, ("a",)).sum()).backward()
    assert e.table("a").weight[0].eq(0).all()
    assert e.table("a").weight.grad[0].eq(0).all()
    assert e.table("a").weight.grad[4].ne(0).all()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Field(name="h", type="sequence", vocab_size=5, share_embedding="b"), "h: share_embedding"),
        (Field(name="h", type="sequence", vocab_size=5, share_embedding="h"), "h: share_embedding"),
        (Field(name="h", type="sequence", vocab_size=9, share_embedding="a"), "9 ids.*table of 5"),
        (Field(name="h", type="numeric_sequence", share_embedding="a"), "cannot share"),
        (Field(name="h", type="sequence", vocab_size=5, share_embedding="t"), "cannot share"),
    ],
)
def test_invalid_sharing_is_refused(field, message):
    first = Field(name="a", type="categorical", vocab_size=5)
    features = feature_map(first, Field(name="t", type="time"), field)
    with pytest.raises(UserError, match=message):
        FieldEmbedding(features, ["h"], 4)
