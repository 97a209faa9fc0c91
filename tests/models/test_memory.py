"""The size of tensors that FESeq_medium saves for a full-length row; no T x T matrix is made."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field
from tossctr.models.feseq import FESeq
from tossctr.models.feseq_config import FESeqConfig

MAX_LEN, ROWS = 500, 3
DEFAULT = ("gender", "age_group", "day_of_week", "hour")
PROMISED_MB_PER_ROW = 1.5


def medium(**options):
    features = FeatureMap(
        dataset_id="test",
        label="clicked",
        fields=(
            *(Field(name=n, type="categorical", vocab_size=9) for n in (*DEFAULT, "slot")),
            *(Field(name=f"n{i}", type="numeric") for i in range(75)),
            Field(name="seq", type="sequence", vocab_size=500, max_len=MAX_LEN),
        ),
    )
    config = FESeqConfig(
        embedding_dim=16,
        default_field=DEFAULT,
        target_field="slot",
        sequence_field="seq",
        seq_feature_interaction_layers=2,
        stacked_transformer_layers=2,
        num_heads=4,
        dnn_hidden_units=(256, 128),
        **options,
    )
    return FESeq(features, config)


def full_rows():
    offsets = torch.arange(ROWS + 1) * MAX_LEN
    return Batch(
        categorical=torch.randint(1, 9, (ROWS, 5)),
        numeric=torch.rand(ROWS, 75),
        sequences={"seq": Ragged(torch.randint(1, 500, (ROWS * MAX_LEN,)), offsets, MAX_LEN)},
    )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("pooling", ["mean", "target"])
def test_saved_tensors_are_within_the_documented_size(pooling, dropout):
    model = medium(seq_pooling_type=pooling, net_dropout=dropout)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        assert model(full_rows()).requires_grad
    saved = sum(x.untyped_storage().nbytes() for at, x in kept.items() if at not in own)
    assert 0.2 < saved / ROWS / 1e6 < PROMISED_MB_PER_ROW


class LargestTensor(TorchDispatchMode):
    """Elements of the largest result of any operation."""

    elements = 0

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def test_no_tensor_of_events_by_events():
    model = medium()
    with LargestTensor() as largest:
        model(full_rows()).sum().backward()
    one_head = ROWS * (MAX_LEN + 1) ** 2
    qkv = ROWS * (MAX_LEN + 1) * 3 * 96
    assert qkv <= largest.elements < one_head
