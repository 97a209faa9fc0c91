"""The training step, on a linear model: logit = w.x + b, with histories of any length."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from tossctr.cluster.processes import ALONE
from tossctr.config.schema import ModelConfig, TrainingConfig
from tossctr.data.features import FeatureMap, Field
from tossctr.data.loader import BatchRows, batches
from tossctr.data.rows import EncodedRows, RaggedArray
from tossctr.errors import UserError
from tossctr.models.base import CTRModel
from tossctr.models.layers.mlp import MLP
from tossctr.training.callbacks import LastValidation, MonitorRule
from tossctr.training.fit import new_trainer, precision
from tossctr.training.module import CTRModule
from tossctr.training.optimizer import new_optimizer

FEATURES = FeatureMap(
    dataset_id="d",
    label="y",
    fields=(Field(name="x", type="numeric"), Field(name="s", type="sequence", vocab_size=9)),
)


class Linear(CTRModel):
    Config = ModelConfig

    def __init__(self, fits=10**9):
        super().__init__(FEATURES, ModelConfig())
        self.map = nn.Linear(1, 1)
        self.fits = fits
        self.sizes = []

    def forward(self, batch):
        events = len(batch.sequences["s"].values) + len(batch)
        if events > self.fits:
            raise torch.OutOfMemoryError("too many events")
        self.sizes.append(events)
        return self.map(batch.numeric).squeeze(1)


def rows_of(n=200, rate=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1)).astype(np.float32)
    label = (rng.random(n) < 1 / (1 + np.exp(-2 * x[:, 0] - np.log(rate / (1 - rate))))).astype(
        "f4"
    )
    lengths = rng.integers(0, 20, n)
    offsets = np.concatenate([[0], lengths.cumsum()])
    sequence = RaggedArray(rng.integers(1, 9, offsets[-1]).astype(np.uint8), offsets)
    return EncodedRows(
        features=FEATURES,
        categorical=np.empty((n, 0), np.uint8),
        numeric=x,
        sequences={"s": sequence},
        label=label,
    )


def fit(model, rows, epochs=1, valid=None, rule=None, **keys):
    config = TrainingConfig(epochs=epochs, **{"batch_size": 50, "learning_rate": 0.05, **keys})
    module = CTRModule(model, config)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        plugins=[precision(config.precision, torch.device("cpu"))],
        val_check_interval=config.eval_steps,
        check_val_every_n_epoch=None if config.eval_steps else 1,
        logger=False,
        callbacks=[*([rule] if rule else []), LastValidation()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    order = BatchRows(
        len(rows),
        config.batch_size,
        shuffle=True,
        label=rows.label,
        negative_sampling=config.negative_sampling,
    )
    valid = valid or rows
    trainer.fit(
        module, batches(rows, order), batches(valid, BatchRows(len(valid), 64, shuffle=False))
    )
    return module


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.model.parameters()])


def seeded(**keys):
    torch.manual_seed(0)
    return Linear(**keys)


@pytest.mark.parametrize("events", [1, 30, 200])
def test_micro_batches_train_like_the_whole_batch(events):
    whole = fit(seeded(), rows_of())
    split = fit(seeded(), rows_of(), micro_batch_events=events)
    assert max(whole.model.sizes) > 400
    assert max(split.model.sizes) <= max(events, 20)
    torch.testing.assert_close(weights(split), weights(whole), rtol=0, atol=1e-6)


def test_out_of_memory_halves_micro_batches_without_losing_a_step():
    whole = fit(seeded(), rows_of())
    tight = fit(seeded(fits=100), rows_of(), micro_batch_events=10_000)
    assert tight.micro_batch_events < 200
    assert max(tight.model.sizes) <= 100
    torch.testing.assert_close(weights(tight), weights(whole), rtol=0, atol=1e-6)


def test_a_row_that_never_fits_is_refused():
    with pytest.raises(UserError, match="not even one row"):
        fit(seeded(fits=1), rows_of())


def test_negative_sampling_keeps_the_output_calibrated():
    rows = rows_of(20_000, rate=0.05)
    module = fit(
        seeded(), rows, epochs=25, negative_sampling=0.2, batch_size=500, learning_rate=0.05
    )
    with torch.no_grad():
        logit = module.model(rows.take(np.arange(len(rows))))
    predicted = torch.sigmoid(logit).double().mean().item()
    assert predicted == pytest.approx(float(rows.label.mean()), rel=0.06)
    assert module.model.map.weight.item() == pytest.approx(2, abs=0.15)


def test_a_loss_that_is_not_finite_names_its_rows():
    rows = rows_of()
    rows.numeric[17] = np.nan
    with pytest.raises(UserError, match=r"loss is not finite.*17"):
        fit(seeded(), rows, micro_batch_events=1)


def test_batches_that_are_not_finite_can_be_skipped_and_are_counted():
    rows = rows_of()
    rows.numeric[17] = np.nan
    good = rows_of(100)
    module = fit(seeded(), rows, epochs=3, on_nonfinite="skip", valid=good)
    assert module.skipped_batches == 3  # one an epoch: the other batches train
    assert torch.isfinite(weights(module)).all()
    assert not torch.equal(weights(module), weights(fit(seeded(), good, learning_rate=1e-12)))


def test_bf16_trains_like_float32():
    full, half = (fit(seeded(), rows_of(), precision=p) for p in ("32", "bf16"))
    assert not torch.equal(weights(full), weights(half))
    torch.testing.assert_close(weights(full), weights(half), rtol=0, atol=0.02)


class Scripted(MonitorRule):
    """A rule that is given the values of a script instead of the model's metric."""

    def __init__(self, script, name="AUC", **keys):
        self.kept, self.name = [], name
        config = TrainingConfig(**keys)
        super().__init__(config, keep=lambda: self.kept.append(len(self.validations.history)))
        self.script = list(script)

    def on_validation_end(self, trainer, module):
        module.metrics[self.name] = self.script.pop(0)
        super().on_validation_end(trainer, module)


NAN = float("nan")


@pytest.mark.parametrize(
    ("script", "kept", "rates"),
    [
        ([0.6, 0.7, 0.65, 0.8, 0.8], [1, 2, 4], [1, 1, 1, 0.1, 0.1]),
        ([0.6, 0.6 + 1e-7, 0.6], [1], [1, 1, 0.1]),  # 1e-7 is too small an improvement
        ([NAN, 0.5, NAN, 0.4], [2], [1, 0.1, 0.1, 0.01]),
    ],
)
def test_monitor_saves_the_best_and_reduces_the_learning_rate(script, kept, rates):
    rule = Scripted(script, early_stop_patience=2)
    fit(seeded(), rows_of(), epochs=len(script), rule=rule)
    assert rule.kept == kept
    assert [row["learning_rate"] / 0.05 for row in rule.validations.history] == pytest.approx(rates)


def test_patience_stops_training():
    rule = Scripted([0.6, 0.5, 0.5, 0.9], early_stop_patience=2)
    fit(seeded(), rows_of(), epochs=4, rule=rule)
    assert len(rule.validations.history) == 3


def test_a_loss_as_monitor_is_minimised():
    rule = Scripted([0.6, 0.5, 0.7], name="logloss", monitor="logloss")
    fit(seeded(), rows_of(), epochs=3, rule=rule)
    assert rule.kept == [1, 2]


def test_a_slurm_script_without_srun_is_one_process(monkeypatch, tmp_path):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = new_trainer(TrainingConfig(epochs=1), torch.device("cpu"), tmp_path, [], ALONE)
    assert trainer.world_size == 1


@pytest.mark.parametrize(
    ("eval_steps", "steps"),
    [(1000, [8]), (5, [5, 8]), (3, [3, 6, 8]), (4, [4, 8]), (8, [8]), (None, [4, 8])],
)
def test_the_weights_after_the_last_step_are_always_validated(eval_steps, steps):
    rule = MonitorRule(TrainingConfig(eval_steps=eval_steps), keep=lambda: None)
    fit(seeded(), rows_of(), epochs=2, rule=rule, eval_steps=eval_steps)  # 4 steps an epoch
    assert [row["step"] for row in rule.validations.history] == steps
    assert [row["epoch"] for row in rule.validations.history] == [1 + (step > 4) for step in steps]


def test_nan_predictions_never_improve_the_monitor():
    rows = rows_of()
    bad = rows_of(80)
    bad.numeric[3] = np.nan
    rule = MonitorRule(TrainingConfig(), keep=lambda: None)
    module = fit(seeded(), rows, epochs=2, rule=rule, valid=bad)
    assert np.isnan(module.metrics["AUC"])
    assert rule.validations.best_row is None
    assert len(rule.validations.history) == 2


class Normed(Linear):
    """The same with a hidden layer of 8 units, batch-normalised."""

    def __init__(self):
        super().__init__()
        self.mlp = MLP(1, [8], output_width=1, batch_norm=True)

    def forward(self, batch):
        self.sizes.append(len(batch))
        return self.map(batch.numeric).squeeze(1) + self.mlp(batch.numeric).squeeze(1)


def normed():
    torch.manual_seed(0)
    return Normed()


def test_skipped_batches_do_not_change_batch_statistics():
    rows = rows_of()
    rows.numeric[17] = np.nan
    module = fit(normed(), rows, epochs=2, on_nonfinite="skip", valid=rows_of(50),
                 micro_batch_events=10**6)  # fmt: skip
    assert module.skipped_batches == 2
    norm = module.model.mlp.layers[1]
    assert torch.isfinite(norm.running_mean).all()
    assert int(norm.num_batches_tracked) == 6  # 2 epochs of 4 batches, less one each
    assert np.isfinite(module.metrics["logloss"])


@pytest.mark.parametrize("loss", ["binary_crossentropy", "pairwise"])
def test_batch_norm_trains_like_a_plain_loop(loss):
    rows = rows_of()
    module = fit(normed(), rows, loss=loss, optimizer="sgd", learning_rate=0.1,
                 micro_batch_events=10**6)  # fmt: skip
    model = normed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for indices in BatchRows(len(rows), 50, shuffle=True, label=rows.label):
        batch = rows.take(np.asarray(indices))
        optimizer.zero_grad()
        logit, label = model(batch), batch.label
        value = torch.nn.functional.binary_cross_entropy_with_logits(logit, label)
        if loss == "pairwise":
            gaps = [torch.nn.functional.softplus(n - p)
                    for p in logit[label > 0.5] for n in logit[label < 0.5]]  # fmt: skip
            value = value + torch.stack(gaps).mean()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(module.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_batch_with_batch_norm_is_not_split():
    model = normed()

    def forward(batch):
        raise torch.OutOfMemoryError("too many rows")

    model.forward = forward
    with pytest.raises(UserError, match="batch normalisation cannot split it; lower batch_size"):
        fit(model, rows_of(), micro_batch_events=10**6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adagrad", "rmsprop"])
def test_fp16_unscales_gradients_once(optimizer):
    full, half = (
        fit(seeded(), rows_of(), optimizer=optimizer, precision=p, learning_rate=0.01,
            net_regularizer=0.01, max_gradient_norm=0.1)
        for p in ("32", "16")
    )  # fmt: skip
    assert not torch.equal(weights(full), weights(half))
    torch.testing.assert_close(weights(full), weights(half), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("given", "decay"), [(None, 0.01), (0.0, 0.0), (0.5, 0.5)])
def test_adamw_decays_as_configured(given, decay):
    model = seeded()
    optimizer = new_optimizer(model, TrainingConfig(optimizer="adamw", weight_decay=given))
    before = model.map.weight.clone()
    model.map.weight.grad = torch.zeros_like(before)
    optimizer.step()
    torch.testing.assert_close(model.map.weight, before * (1 - 1e-3 * decay))


def test_weight_decay_without_adamw_is_refused():
    with pytest.raises(
        UserError, match="weight_decay: is only for adamw, and the optimizer is adam"
    ):
        TrainingConfig(weight_decay=0.1)
