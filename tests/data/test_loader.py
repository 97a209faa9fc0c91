import errno
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tossctr.data.features import FeatureMap, Field
from tossctr.data.loader import BatchRows, RowsDataset, batches, ending_workers
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.errors import UserError


def rows_of(lengths, max_len=None, truncating="pre"):
    """Rows with distinct values: event j of row i is 1000 * i + j."""
    features = FeatureMap(
        dataset_id="d",
        label="y",
        fields=(
            Field(name="c", type="categorical", vocab_size=10),
            Field(name="x", type="numeric"),
            Field(name="s", type="sequence", vocab_size=9, max_len=max_len, truncating=truncating),
        ),
    )
    n = len(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.concatenate([1000 * i + np.arange(k) for i, k in enumerate(lengths)] or [[]])
    return EncodedRows(
        features=features,
        categorical=np.arange(n, dtype=np.uint8).reshape(n, 1),
        numeric=np.arange(n, dtype=np.float32).reshape(n, 1),
        sequences={"s": RaggedArray(values.astype(np.uint32), offsets)},
        times=np.empty((n, 0)),
        meta=np.empty((n, 0), np.int64),
        label=(np.arange(n) % 2).astype(np.float32),
    )


lengths_of = st.lists(st.integers(0, 12), min_size=1, max_size=30)


@given(lengths_of, st.integers(1, 12), st.sampled_from(["pre", "post"]), st.data())
def test_take_keeps_the_right_end_of_each_row(lengths, max_len, truncating, data):
    rows = rows_of(lengths, max_len, truncating)
    number = st.integers(0, len(lengths) - 1)
    wanted = np.array(data.draw(st.lists(number, min_size=1, max_size=40)))
    batch = rows.take(wanted)
    history = batch.sequences["s"]
    for i, row in enumerate(wanted):
        events = [1000 * row + j for j in range(lengths[row])]
        kept = events[-max_len:] if truncating == "pre" else events[:max_len]
        start, stop = history.offsets[i], history.offsets[i + 1]
        assert history.values[start:stop].tolist() == kept
        assert batch.numeric[i, 0] == row
        assert batch.label[i] == row % 2
    assert history.max_length == int(history.lengths.max())
    assert batch.row.tolist() == wanted.tolist()


@given(lengths_of, st.integers(1, 40))
def test_split_parts_add_up_and_keep_to_the_limit(lengths, max_events):
    batch = rows_of(lengths).take(np.arange(len(lengths)))
    parts = batch.split(max_events)
    assert torch.equal(torch.cat([p.row for p in parts]), batch.row)
    assert torch.equal(torch.cat([p.label for p in parts]), batch.label)
    pieces = [p.sequences["s"] for p in parts]
    assert torch.equal(torch.cat([p.values for p in pieces]), batch.sequences["s"].values)
    for part, piece in zip(parts, pieces, strict=True):
        assert piece.offsets[0] == 0
        assert piece.max_length == int(piece.lengths.max())
        assert len(part) == 1 or int((piece.lengths + 1).sum()) <= max_events


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_each_epoch_sees_every_row_once_in_another_order(rows, batch_size, epoch):
    sampler = BatchRows(rows, batch_size, shuffle=True, seed=7)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    assert sampler.rows_per_epoch == rows
    assert all(len(numbers) == batch_size for numbers in drawn[:-1])
    assert sorted(np.concatenate(drawn)) == list(range(rows))
    again = BatchRows(rows, batch_size, shuffle=True, seed=7)
    again.set_epoch(epoch)
    assert [list(x) for x in again] == [list(x) for x in drawn]
    again.set_epoch(epoch + 1)
    if rows > 20:
        assert np.concatenate(list(again)).tolist() != np.concatenate(drawn).tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.floats(0.05, 1), st.integers(0, 3))
def test_negative_sampling_keeps_every_click_and_draws_others_anew(clicked, rate, epoch):
    label = np.array(clicked, np.float32)
    order = BatchRows(len(label), 16, shuffle=True, seed=3, label=label, negative_sampling=rate)
    order.set_epoch(epoch)
    rows = np.concatenate([*order, np.empty(0, int)])
    assert len(rows) == order.rows_per_epoch == len(set(rows.tolist()))
    assert set(np.flatnonzero(label)) <= set(rows.tolist())
    negatives = int((label == 0).sum())
    assert int((label[rows] == 0).sum()) == round(negatives * rate)


def test_negatives_differ_between_epochs():
    label = np.zeros(1000, np.float32)
    order = BatchRows(1000, 100, shuffle=True, label=label, negative_sampling=0.1)
    first = set(np.concatenate(list(order)).tolist())
    order.set_epoch(1)
    assert len(first & set(np.concatenate(list(order)).tolist())) < 50


def test_unshuffled_batches_come_in_order():
    assert np.concatenate(list(BatchRows(10, 4, shuffle=False))).tolist() == list(range(10))


@settings(max_examples=20)
@given(lengths_of)
def test_rows_of_a_batch_stand_by_truncated_length(lengths):
    dataset = RowsDataset(rows_of(lengths, max_len=5))
    batch = dataset[np.arange(len(lengths))]
    found = batch.sequences["s"].lengths.tolist()
    assert found == sorted(min(k, 5) for k in lengths)
    assert sorted(batch.row.tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_yields_whole_batches(num_workers):
    rows = rows_of([3, 0, 5, 1, 2])
    order = BatchRows(5, 2, shuffle=False)
    seen = [batch.row.tolist() for batch in batches(rows, order, num_workers=num_workers)]
    assert [sorted(x) for x in seen] == [[0, 1], [2, 3], [4]]


class Unsendable(EncodedRows):
    """Rows as a store maps them: pickling them for another process sends all of it."""

    def __reduce__(self):
        raise AssertionError("rows were pickled")


def loader_of(rows, **options):
    rows = Unsendable(**vars(rows))
    return batches(rows, BatchRows(8, 2, shuffle=False), num_workers=1, **options)


def test_the_loader_works_if_the_default_start_method_is_forkserver(monkeypatch):
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", None)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        loader = loader_of(rows_of([1] * 8))
        with ending_workers(loader):
            assert sum(len(batch.row) for batch in loader) == 8
    finally:
        multiprocessing.set_start_method(None, force=True)


def test_a_killed_loader_process_is_a_one_line_error():
    loader = loader_of(rows_of([1] * 8))

    def read_on():
        with ending_workers(loader):
            iterator = iter(loader)
            os.kill(iterator._workers[0].pid, signal.SIGKILL)
            for _ in range(100):  # torch raises it wherever it hears of it
                time.sleep(0.1)
                list(iter(loader))

    with pytest.raises(UserError, match=r"was killed.*num_workers=0"):
        read_on()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
    ],
)
def test_too_few_file_handles_are_one_line(error):
    with pytest.raises(UserError, match="open files") as raised, ending_workers():
        raise error
    assert raised.value.__cause__ is error


def test_other_errors_are_not_converted():
    for error in (RuntimeError("shapes"), OSError(errno.EIO, "disk")):
        with pytest.raises(type(error)) as raised, ending_workers():
            raise error
        assert raised.value is error
        assert raised.value.__cause__ is None
