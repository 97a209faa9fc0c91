"""Several processes train as one would: same gradients, weights, metrics, and each row once."""

import dataclasses
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from together import together

from tossctr.cluster.errors import ErrorElsewhere
from tossctr.config.schema import TrainingConfig
from tossctr.data.batch import Batch
from tossctr.data.features import FeatureMap, Field
from tossctr.data.loader import BatchRows, batches
from tossctr.data.prepare import open_prepared, prepare
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.metrics.registry import evaluate
from tossctr.models.base import CTRModel
from tossctr.runs.checks import check_model
from tossctr.runs.train import train
from tossctr.training import fit as module
from tossctr.training.interruption import Stopped, StopSignal
from tossctr.training.module import CTRModule

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@st.composite
def cases(draw):
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=60))
    return lengths, draw(st.integers(1, 20)), draw(st.integers(1, 5)), draw(st.integers(0, 3))


@given(cases())
def test_processes_see_every_row_once_in_shares_alike(case):
    lengths, batch_size, processes, epoch = case
    n = len(lengths)
    field = Field(name="s", type="sequence", vocab_size=9)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = EncodedRows(
        features=FeatureMap(dataset_id="d", label="y", fields=(field,)),
        categorical=np.empty((n, 0), np.uint8),
        numeric=np.empty((n, 0), np.float32),
        sequences={"s": RaggedArray(np.ones(offsets[-1], np.uint8), offsets)},
        label=np.zeros(n, np.float32),
    )
    order = BatchRows(n, batch_size, shuffle=True, seed=5)
    order.set_epoch(epoch)
    shares = [list(batches(rows, order, share=(r, processes))) for r in range(processes)]
    expected = list(order)
    assert {len(share) for share in shares} == {len(expected)}  # a step for all, rows or not
    for number, joint in enumerate(zip(*shares, strict=True)):
        seen = torch.cat([part.row for part in joint]).tolist()
        assert sorted(seen) == sorted(expected[number].tolist())
        assert len(seen) == order.rows_of(number)
        sizes = [len(part) for part in joint]
        assert max(sizes) - min(sizes) <= 1
        events = [int(part.sequences["s"].offsets[-1]) for part in joint]
        assert max(events) - min(events) <= max(lengths)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 350, 1, seed=3)
    prepare(experiment(root).dataset)
    return root


def experiment(root, *keys):
    settings = {
        "data_root": root,
        "train_data": root / "train.parquet",
        "valid_split.method": "stratified",
        "valid_split.fraction": 0.25,
        "max_len": 8,
        "epochs": 2,
        "batch_size": 87,  # 262 train rows: the last batch has 1, and one of 3 processes none
        "net_dropout": 0,
        "num_workers": 0,
        "early_stop_patience": 5,
        "optimizer": "sgd",  # Adam would make steps of rounding errors where a gradient is 0
        "learning_rate": 0.1,
        "embedding_regularizer": 1e-4,
        "checkpoint_minutes": 60,
    }
    overrides = [f"{k}={v}" for k, v in settings.items()] + list(keys)
    return load_experiment(CONFIGS, "FESeq_toy", overrides)


class Watched(pl.Callback):
    """Keeps each step's gradients; asks for a stop after the batch of that number."""

    def __init__(self, stop=None, after=None):
        self.gradients = []
        self.stop, self.after = stop, after

    def on_before_optimizer_step(self, trainer, module, optimizer):
        flat = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(flat).numpy().copy())

    def on_train_batch_start(self, trainer, module, batch, index):
        if self.after == trainer.global_step:
            self.stop.number = 15


def fit(processes, root, folder, *keys, stop_after=None):
    """Gradients of each step and the run's folder; None instead where it was stopped."""
    chosen = experiment(root, *keys)
    stop = StopSignal()
    watched = Watched(stop, stop_after)
    made = module.new_trainer
    module.new_trainer = lambda c, d, logs, callbacks, p: made(c, d, logs, [watched, *callbacks], p)
    module.StopSignal = lambda: stop
    try:
        train(chosen, open_prepared(chosen.dataset), CPU, folder, processes=processes)
    except Stopped:
        return None
    finally:
        module.new_trainer, module.StopSignal = made, StopSignal
    return watched.gradients


def result(folder):
    from tossctr.runs.run_folder import load_run

    run = load_run(folder)
    return load_file(folder / "model.safetensors"), run.metrics


def assert_like(folder, reference, exact=False):
    weights, metrics = result(folder)
    expected, expected_metrics = result(reference)
    for name, value in weights.items():
        if exact:
            assert torch.equal(value, expected[name])
        else:
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    for row, other in zip(metrics["history"], expected_metrics["history"], strict=True):
        assert row == pytest.approx(other, rel=0 if exact else 1e-5, nan_ok=True)


@pytest.fixture(scope="module")
def one(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    return together(1, lambda p: fit(p, root, folder))[0], folder


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_weights_and_metrics_are_those_of_one_process(root, tmp_path, one, count):
    gradients, folder = one
    found = together(count, lambda p: fit(p, root, tmp_path / "run"))
    assert all(len(each) == len(gradients) == 8 for each in found)
    for step in range(8):
        assert all(np.array_equal(each[step], found[0][step]) for each in found)
        # The last step's batch is short: one of three processes has no row of it.
        np.testing.assert_allclose(found[0][step], gradients[step], rtol=0, atol=1e-6)
    assert_like(tmp_path / "run", folder)
    # One process wrote, and nothing is left but the run.
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["results.csv", "run"]
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2)])
def test_a_checkpoint_resumes_with_another_number_of_processes(root, tmp_path, one, before, after):
    def stopped(processes):
        # A signal to the last process is one to all.
        last = processes.rank == processes.world_size - 1
        return fit(processes, root, tmp_path / "run", stop_after=2 if last else None)

    assert together(before, stopped) == [None] * before
    (checkpoint,) = (tmp_path / "run.partial" / "checkpoints").glob("step-*")
    assert checkpoint.name == "step-000000003.safetensors"
    found = together(after, lambda p: fit(p, root, tmp_path / "run"))
    assert [len(each) for each in found] == [5] * after
    assert_like(tmp_path / "run", one[1])


def test_stopped_processes_end_as_if_they_had_not_been_dropout_included(root, tmp_path):
    keys = ["net_dropout=0.3", "num_workers=1", "eval_steps=3", "optimizer=adam"]
    whole = together(2, lambda p: fit(p, root, tmp_path / "whole", *keys))
    assert together(2, lambda p: fit(p, root, tmp_path / "run", *keys, stop_after=1)) == [None] * 2
    rest = together(2, lambda p: fit(p, root, tmp_path / "run", *keys))
    assert all(np.array_equal(a, b) for a, b in zip(rest[0], whole[0][2:], strict=True))
    assert_like(tmp_path / "run", tmp_path / "whole", exact=True)


def test_metrics_of_the_same_predictions_do_not_depend_on_processes():
    names = ("AUC", "logloss", "AP", "WLL", "gAUC", "NDCG(k=3)")
    config = TrainingConfig(metrics=names, group_id="g")
    rng = np.random.default_rng(0)
    n = 301
    label = (rng.random(n) < 0.2).astype("f4")
    logit = rng.normal(size=n).astype("f4")
    group = rng.integers(0, 20, n)

    def work(processes):
        class Same(CTRModel):
            def __init__(self):
                torch.nn.Module.__init__(self)

            def forward(self, batch):
                return torch.from_numpy(logit)[batch.row]

        rows = EncodedRows(
            features=FeatureMap(dataset_id="d", label="y", fields=()),
            categorical=np.empty((n, 0), np.uint8),
            numeric=np.empty((n, 0), np.float32),
            label=label,
        )
        joint = CTRModule(Same(), config, group, processes)
        joint.log_dict = lambda metrics: None
        share = (processes.rank, processes.world_size)
        for batch in batches(rows, BatchRows(n, 100, shuffle=False), share=share):
            joint.validation_step(batch.split(10) if len(batch) else [], 0)
        joint.on_validation_epoch_end()
        return joint.metrics

    expected = evaluate(label, logit, names, group=group)
    for count in (1, 2, 3):
        for found in together(count, work):
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, abs=1e-9)


def test_a_nonfinite_loss_of_one_process_is_reported_once_or_skipped_by_all(root, tmp_path):
    def work(processes, folder, *keys):
        chosen = experiment(root, *keys)
        data = open_prepared(chosen.dataset)
        numeric = np.array(data.train.numeric)
        numeric[17] = np.nan
        data = dataclasses.replace(data, train=dataclasses.replace(data.train, numeric=numeric))
        run = train(chosen, data, CPU, folder, processes=processes)
        return run.metrics["skipped_batches"]

    first, other = together(2, lambda p: work(p, tmp_path / "a"))
    assert isinstance(first, UserError)
    assert "17" in first.line()
    assert "loss is not finite" in first.line()
    assert type(other) is ErrorElsewhere
    assert together(2, lambda p: work(p, tmp_path / "b", "on_nonfinite=skip")) == [2, 2]


def test_out_of_memory_in_one_process_ends_all(root, tmp_path):
    def work(processes):
        def tight(self, parts, optimizer):
            if processes.rank == 1:
                return None  # as if each part were too large
            return made(self, parts, optimizer)

        made = CTRModule._backward
        CTRModule._backward = tight
        return fit(processes, root, tmp_path / "run")

    first, other = together(2, work)
    assert "not even one row fits" in first.line()
    assert type(other) is ErrorElsewhere


@pytest.mark.parametrize(
    ("expid", "key", "message"),
    [
        ("FESeq_toy", "loss=pairwise", "pairwise loss needs the whole batch"),
        ("LightGBM_toy", "seed=1", "trees are trained by one process"),
    ],
)
def test_what_several_cannot_train_is_one_line(expid, key, message):
    chosen = load_experiment(CONFIGS, expid, [key])
    check_model(chosen)
    with pytest.raises(UserError, match=message):
        check_model(chosen, 2)


def test_empty_shares_are_batches():
    assert Batch(categorical=torch.empty(0, 2), numeric=torch.empty(0, 1)).split(10) == []
