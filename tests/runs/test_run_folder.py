"""A run from anywhere: opened without running code, without trust in its sizes, or refused."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tossctr.data.prepare import prepare
from tossctr.data.synthetic import synthesize
from tossctr.errors import UserError
from tossctr.families.experiment import load_experiment
from tossctr.files import sha256_of
from tossctr.pipeline.evaluate import evaluate_run
from tossctr.runs.run_folder import HASHED, load_run
from tossctr.runs.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthesize(root, 300, 50, seed=3)
    keys = [f"data_root={root}", f"train_data={root / 'train.parquet'}", "epochs=1",
            "valid_split.method=stratified", "valid_split.fraction=0.3", "max_len=8",
            "num_workers=0"]  # fmt: skip
    experiment = load_experiment(CONFIGS, "FESeq_toy", keys)
    return train(experiment, prepare(experiment.dataset), CPU, root / "run").folder


@pytest.fixture
def folder(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def signed(folder):
    """Make the hashes right again, as whoever changed the files would."""
    about = json.loads((folder / "run.json").read_text())
    about["sha256"] = {name: sha256_of(folder / name) for name in HASHED}
    (folder / "run.json").write_text(json.dumps(about))


def changed(folder, file, change):
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def first_embedding(state):
    return next(k for k in state if "embedding" in k and state[k].ndim == 2)


def replaced_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def huge_vocabulary(content):
    fields = [f for f in content["fields"] if f["type"] == "sequence"]
    fields[0]["vocab_size"] = 10**12


def huge_dimension(content):
    content["hyperparameters"]["embedding_dim"] = 10**9


HOSTILE = {
    "features of other sizes": (
        lambda f: changed(f, "features.json", huge_vocabulary),
        "does not fit the encoder",
    ),
    "a model of other sizes": (
        lambda f: changed(f, "experiment.json", huge_dimension),
        "embedding_dim must be at most 65536",
    ),
    "weights of another shape": (
        lambda f: replaced_weights(f, lambda s: s.update({first_embedding(s): torch.zeros(2, 2)})),
        "the weights do not fit the config",
    ),
    "weights of another type": (
        lambda f: replaced_weights(
            f, lambda s: s.update({k: v.to(torch.float64) for k, v in s.items()})
        ),
        "float32",
    ),
    "weights left out": (
        lambda f: replaced_weights(f, lambda s: s.pop(first_embedding(s))),
        "found 'absent'",
    ),
    "a header beyond the file": (
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x00" * 90),
        "not a safetensors file",
    ),
    "a pickle for weights": (
        lambda f: torch.save({"w": torch.zeros(3)}, f / "model.safetensors"),
        "not a safetensors file",
    ),
    "a run in a run": (
        lambda f: changed(f, "experiment.json", lambda c: c.update(expid="../../elsewhere")),
        "expid",
    ),
    "data in another's folder": (
        lambda f: changed(
            f, "experiment.json", lambda c: c["dataset"].update(dataset_id="../../home")
        ),
        "dataset_id",
    ),
    "JSON without end": (
        lambda f: (f / "experiment.json").write_text("[" * 100_000),
        "is not JSON",
    ),
    "metrics without end": (
        lambda f: (f / "metrics.json").write_text("[" * 100_000),
        "recursion limit",
    ),
    "a list for an experiment": (lambda f: (f / "experiment.json").write_text("[]"), "experiment"),
    "metrics that are a list": (lambda f: (f / "metrics.json").write_text("[]"), "metrics"),
    "metrics without an epoch": (
        lambda f: changed(f, "metrics.json", lambda c: c["best"].pop("epoch")),
        "without epoch",
    ),
    "metrics that are text": (
        lambda f: changed(f, "metrics.json", lambda c: c.update(best="good")),
        "best",
    ),
    "a size of nothing": (
        lambda f: changed(f, "encoder.json", lambda c: c.update(index_sizes={"seq": 2**60})),
        "encoder",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_fit_is_refused_before_it_is_built(folder, name):
    change, message = HOSTILE[name]
    change(folder)
    signed(folder)
    with pytest.raises(UserError, match=message):
        load_run(folder)


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    shutil.move(folder / "encoder.json", tmp_path / "elsewhere.json")
    (folder / "encoder.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"encoder\.json: is a link"):
        load_run(folder)


@pytest.mark.parametrize(
    "name", ["run.json", "metrics.json", "experiment.json", "model.safetensors"]
)
def test_pipes_devices_and_folders_are_refused_at_once(folder, name):
    """A pipe hung until something was written to it, a link to a device for ever."""
    file = folder / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=rf"{name}: is not a regular file"):
        load_run(folder)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{name}: is a link"):
        load_run(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=rf"{name}: is not a regular file"):
        load_run(folder)


def test_a_file_without_end_is_refused_by_its_size(folder):
    with (folder / "run.json").open("r+b") as file:
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(UserError, match="is larger than"):
        load_run(folder)


def test_changed_metrics_are_found(folder):
    changed(folder, "metrics.json", lambda c: c["best"].update(AUC=0.99))
    with pytest.raises(UserError, match=r"metrics\.json: has changed since training"):
        load_run(folder)


def test_hashes_without_end(folder):
    (folder / "run.json").write_text('{"version": 1, "sha256": ' + "[" * 100_000)
    with pytest.raises(UserError, match="recursion limit"):
        load_run(folder)


def test_a_run_from_someone_else_writes_nothing_at_its_paths(folder, tmp_path):
    target = tmp_path / "victim"
    (target / "tossctr_toy" / "train").mkdir(parents=True)
    precious = target / "tossctr_toy" / "train" / "precious.txt"
    precious.write_text("kept")
    changed(folder, "experiment.json", lambda c: c["dataset"].update(data_root=str(target)))
    signed(folder)
    with pytest.raises(UserError, match="no prepared data to compute them from"):
        evaluate_run(load_run(folder), None, device=CPU)
    assert [p for p in target.rglob("*") if p.is_file()] == [precious]


def test_validation_of_one_class_is_refused_before_training(trained, tmp_path):
    experiment = load_run(trained).experiment
    data = prepare(experiment.dataset)
    label = data.valid.label
    label = label.copy()
    label[:] = 0
    data = replace(data, valid=replace(data.valid, label=label))
    with pytest.raises(UserError, match=r"AUC is not defined on the \d+ validation rows"):
        train(experiment, data, CPU, tmp_path / "run")
