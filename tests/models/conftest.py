from collections.abc import Callable

import pytest
import torch

from tossctr.data.batch import Batch, Ragged
from tossctr.data.features import FeatureMap, Field

MAX_LEN = 6
LENGTHS = (0, 6, 1, 3, 0, 5, 3)  # unsorted, with empty, one-event and full histories


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors here are tiny: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def features() -> FeatureMap:
    """Ids and numbers, alone and in sequences, shared and unshared tables, times."""
    sequence = {"max_len": MAX_LEN}
    return FeatureMap(
        dataset_id="test",
        label="clicked",
        fields=(
            Field(name="gender", type="categorical", vocab_size=4),
            Field(name="hour", type="categorical", vocab_size=7),
            Field(name="item", type="categorical", vocab_size=12),
            Field(name="shop.id", type="categorical", vocab_size=5),
            Field(name="price", type="numeric"),
            Field(name="n1", type="numeric"),
            Field(name="n2", type="numeric"),
            Field(name="items", type="sequence", vocab_size=12, share_embedding="item", **sequence),
            Field(name="shops", type="sequence", vocab_size=5, **sequence),
            Field(name="prices", type="numeric_sequence", share_embedding="price", **sequence),
            Field(name="now", type="time"),
            Field(name="then", type="time_sequence", **sequence),
            Field(name="user", type="meta"),
        ),
    )


@pytest.fixture
def batch(features: FeatureMap) -> Batch:
    return make_batch(features)


@pytest.fixture
def batch_of(features: FeatureMap) -> Callable[..., Batch]:
    """A maker of batches with the histories' lengths given."""
    return lambda *lengths, seed=0: make_batch(features, lengths, seed)


def make_batch(features: FeatureMap, lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    rows, events = len(lengths), sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)

    def ids(name: str, count: int) -> torch.Tensor:
        return torch.randint(1, features[name].vocab_size, (count,), generator=draw)

    def history(values: torch.Tensor) -> Ragged:
        return Ragged(values, offsets, max(lengths, default=0))

    now = torch.randint(1000, 2000, (rows,), generator=draw).double()
    ages = torch.randint(0, 900, (events,), generator=draw).double()
    return Batch(
        categorical=torch.stack([ids(n, rows) for n in features.names("categorical")], 1),
        numeric=torch.rand(rows, len(features.names("numeric")), generator=draw),
        sequences={
            **{n: history(ids(n, events)) for n in features.names("sequence")},
            **{
                n: history(torch.rand(events, generator=draw))
                for n in features.names("numeric_sequence")
            },
        },
        times=dict.fromkeys(features.names("time"), now),
        time_sequences=dict.fromkeys(
            features.names("time_sequence"), history(now.repeat_interleave(offsets.diff()) - ages)
        ),
        label=(torch.rand(rows, generator=draw) < 0.5).float(),
        row=torch.arange(rows),
    )


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], None]:
    """Weights of order one, so that every part of a model shows in its output."""

    def draw(model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
            for module in model.modules():
                if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()

    return draw
