import pytest
import torch

from tossctr.models.layers.time import time_buckets


def bucket(target, event, buckets, base):
    stamps = (torch.tensor([float(t)], dtype=torch.float64) for t in (target, event))
    return int(time_buckets(*stamps, buckets, base))


def test_linear_buckets_do_not_use_the_padding_row():
    assert bucket(100, 100, 11, -1) == 0
    assert bucket(100, 91.5, 11, -1) == 8
    assert bucket(100, 91, 11, -1) == 9
    assert bucket(100, 10, 11, -1) == 9


def test_an_event_after_its_target_has_interval_zero():
    assert bucket(100, 200, 11, -1) == 0


@pytest.mark.parametrize("base", [2, 3, 5, 10])
def test_exact_powers_start_a_bucket(base):
    for k in range(int(torch.log(torch.tensor(1e12)) / torch.log(torch.tensor(float(base))))):
        assert bucket(base**k - 1, 0, 100, base) == k
        if base**k > 2:
            assert bucket(base**k - 2, 0, 100, base) == k - 1


def test_large_times_keep_their_precision():
    now = 1_700_000_000_001  # milliseconds
    assert bucket(now, now - 3, 4001, -1) == 3
