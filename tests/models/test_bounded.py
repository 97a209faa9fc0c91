"""Models built for weights that a file holds: the same model, and nothing beyond the limit."""

import resource

import pytest
import torch
from test_family import CASES, PAIRS

from tossctr.models import MODELS, build_model
from tossctr.models.bounded import TooLarge, build_within

FESEQ = {**PAIRS, "default_field": "gender", "dnn_hidden_units": [6], "use_position_emb": True}
MORE = {
    f"FESeq {numeric}": (
        "FESeq", {**FESEQ, "position_init": "sinusoidal", "numeric_embedding": numeric}
    )
    for numeric in ("linear", "piecewise", "periodic")
}  # fmt: skip
MIB = 1 << 20


def lengthened(features, max_len):
    fields = (
        f.model_copy(update={"max_len": max_len} if f.max_len else {}) for f in features.fields
    )
    return features.model_copy(update={"fields": tuple(fields)})


@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_weights_complete_the_model_that_was_trained(features, batch, case):
    name, options = {**CASES, **MORE}[case]
    config = MODELS[name].Config(embedding_dim=4, **options)
    trained = build_model(name, features, config, seed=3).eval()
    loaded = build_within(name, features, config, MIB).eval()
    loaded.load_state_dict(trained.state_dict())
    for (key, ours), (_, theirs) in zip(
        loaded.named_buffers(), trained.named_buffers(), strict=True
    ):  # tables of sines too, which no file holds
        assert torch.equal(ours, theirs), key
    assert torch.equal(loaded(batch), trained(batch))


@pytest.mark.parametrize(
    ("width", "max_len"), [(2**16, 5), (8, 2**31 - 2), (2**12, 2**20)], ids=["wide", "long", "both"]
)
def test_what_is_larger_is_refused_before_it_is_allocated(features, width, max_len):
    options = {**FESEQ, "num_heads": 1, "position_init": "sinusoidal", "dnn_hidden_units": [width]}
    config = MODELS["FESeq"].Config(embedding_dim=width, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge):
        build_within("FESeq", lengthened(features, max_len), config, 64 * MIB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_a_long_wide_table_of_positions_fits_next_to_small_weights(features):
    options = {**FESEQ, "num_heads": 1, "position_init": "sinusoidal"}
    config = MODELS["FESeq"].Config(embedding_dim=512, **options)
    build_within("FESeq", lengthened(features, 20_000), config, 1 << 30)
