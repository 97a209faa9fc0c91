"""Against the released FuxiCTR, in a separate environment: `make test-fuxictr`.

The same raw files go through both. What FuxiCTR prepares trains here, what we export trains there.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.special import expit

from tossctr.data.encoded.feature_map import FuxiMap
from tossctr.data.prepare import Prepared, prepare
from tossctr.families.experiment import load_dataset, load_experiment
from tossctr.interop.formats import Format
from tossctr.interop.fuxictr_export import export
from tossctr.metrics.registry import evaluate
from tossctr.runs.train import train

pytestmark = pytest.mark.fuxictr

SIDE = Path(__file__).with_name("fuxictr_side.py")
METRICS = ("logloss", "AUC", "gAUC", "avgAUC", "MRR", "NDCG(k=1)", "NDCG(k=3)")
FEATURES = """
- {name: user, active: true, dtype: int, type: meta}
- {name: [item, kind], active: true, dtype: str, type: categorical}
- {name: hist, active: true, dtype: str, type: sequence, splitter: ^, max_len: 4, padding: pre,
   share_embedding: item}
- {name: pages, active: true, dtype: str, type: sequence, splitter: ^, max_len: 5}
- {name: price, active: true, dtype: float, type: numeric, normalizer: MinMaxScaler, fill_na: 0}
"""
PREPARED_THERE = """
tiny:
    data_format: parquet
    rebuild_dataset: false
    train_data: data/tiny/train.parquet
    valid_data: data/tiny/valid.parquet
"""
EXPERIMENT = {
    "model": "BST",
    "dataset_id": "tiny",
    "bst_target_field": "item",
    "bst_sequence_field": "hist",
    "embedding_dim": 4,
    "num_heads": 2,
    "dnn_hidden_units": [8],
    "epochs": 2,
    "batch_size": 50,
    "learning_rate": 0.01,
    "metrics": ["AUC", "logloss", "gAUC"],
    "group_id": "user",
    "num_workers": 0,
}


@dataclass(frozen=True)
class Both:
    """What either side made of the same raw files.

    `there` and `here` are project folders; `side` is the result of `fuxictr_side.py`.
    """

    there: Path
    here: Path
    prepared: Prepared
    raw: dict[str, list[dict[str, str]]]
    predictions: dict[str, Any]
    side: dict[str, Any]


def raw_rows(rows: int, rng: np.random.Generator) -> list[dict[str, str]]:
    def joined(prefix: str, kinds: int) -> str:
        return "^".join(f"{prefix}{i}" for i in rng.integers(1, kinds, rng.integers(1, 7)))

    return [
        {
            "user": str(rng.integers(1, 9)),
            "item": f"i{rng.integers(1, 20)}",
            "kind": f"k{rng.integers(1, 6)}",
            "hist": joined("i", 20),
            "pages": joined("p", 9),
            "price": f"{rng.normal():.4f}",
            "click": str(int(rng.random() < 0.4)),
        }
        for _ in range(rows)
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    python = os.environ.get("FUXICTR_PYTHON")
    assert python, "FUXICTR_PYTHON names the Python that has FuxiCTR: use make test-fuxictr"
    root = tmp_path_factory.mktemp("both")
    there, here = root / "there", root / "here"
    rng = np.random.default_rng(0)
    raw = {"train": raw_rows(200, rng), "valid": raw_rows(80, rng)}
    for folder in (there / "data", here / "data", here / "configs"):
        folder.mkdir(parents=True)
    for part, rows in raw.items():
        with (here / f"data/{part}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    config = {
        "data_root": "data",
        "data_format": "csv",
        "train_data": "data/train.csv",
        "valid_data": "data/valid.csv",
        "feature_cols": yaml.safe_load(FEATURES),
        "label_col": {"name": "click", "dtype": "float"},
    }
    (here / "configs/dataset_config.yaml").write_text(yaml.safe_dump({"tiny": config}))
    dataset = load_dataset(here / "configs", "tiny")
    prepared = prepare(dataset)
    for form in Format:
        export(prepared, dataset, here / form.value, form)

    predictions = {
        "label": rng.integers(0, 2, 500).astype(float),
        "logit": rng.normal(size=500),
        "group": rng.integers(0, 30, 500),
    }
    saved = {**predictions, "probability": expit(predictions["logit"])}
    np.savez(root / "predictions.npz", **saved)
    raw_paths = {f"{part}_data": str(here / f"data/{part}.csv") for part in raw}
    tasks = {
        "metrics": [str(root / "predictions.npz"), METRICS],
        "build": {**config, **raw_paths, "dataset_id": "tiny", "data_root": str(there / "data")},
        "steps": [
            {"folder": str(here / form.value), "dataset_id": "tiny", "format": form.suffix[1:]}
            for form in Format
        ],
    }
    (root / "tasks.json").write_text(json.dumps(tasks))
    done = subprocess.run(
        [Path(python).absolute(), SIDE, root / "tasks.json"],
        cwd=root,
        capture_output=True,
        text=True,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    side = json.loads(done.stdout.splitlines()[-1])
    return Both(there, here, prepared, raw, predictions, side)


def test_both_make_the_same_feature_map(both: Both) -> None:
    ours = json.loads((both.here / "fuxictr-parquet/feature_map.json").read_text())
    theirs = json.loads((both.there / "data/tiny/feature_map.json").read_text())
    assert ours == theirs
    ours = json.loads((both.here / "fuxictr-parquet/feature_vocab.json").read_text())
    theirs = json.loads((both.there / "data/tiny/feature_vocab.json").read_text())
    assert ours.keys() == theirs.keys()
    for name in ("kind", "pages"):
        assert ours[name] == theirs[name]
    # A shared vocabulary is counted over all that share it here, and one by one there.
    assert ours["item"].keys() == theirs["item"].keys()


@pytest.mark.parametrize("number", [0, 1])
def test_fuxictr_trains_on_our_export(both: Both, number: int) -> None:
    found = both.side["steps"][number]
    assert found["rows"] == [200, 80]
    assert np.isfinite(found["losses"]).all()
    assert np.mean(found["losses"][-4:]) < np.mean(found["losses"][:4])
    fuxi = FuxiMap.read(both.here / "fuxictr-h5/feature_map.json")
    assert found["sum_emb_out_dim"] == fuxi.sum_emb_out_dim(4)
    assert found["num_fields"] == fuxi.num_fields
    assert found["input_length"] == fuxi.input_length
    assert found["column_index"] == fuxi.column_index

    rows = both.prepared.valid
    item = rows.features.names("categorical").index("item")
    assert found["first"]["item"] == rows.categorical[:5, item].tolist()
    assert found["first"]["price"] == pytest.approx(rows.numeric[:5, 0].tolist())
    assert found["first"]["user"] == [int(row["user"]) for row in both.raw["valid"][:5]]
    hist = rows.sequences["hist"]
    for row, padded in enumerate(found["first"]["hist"]):
        kept = hist.values[hist.offsets[row] : hist.offsets[row + 1]][-4:].tolist()
        assert padded == [0] * (4 - len(kept)) + kept


def test_data_prepared_by_fuxictr_can_be_trained_on(both: Both) -> None:
    configs = both.there / "configs"
    configs.mkdir()
    (configs / "dataset_config.yaml").write_text(PREPARED_THERE)
    (configs / "model_config.yaml").write_text(yaml.safe_dump({"x": EXPERIMENT}))
    experiment = load_experiment(configs, "x")
    data = prepare(experiment.dataset)
    vocabulary = json.loads((both.there / "data/tiny/feature_vocab.json").read_text())
    kind = data.train.features.names("categorical").index("kind")
    expected = [vocabulary["kind"][row["kind"]] for row in both.raw["train"]]
    assert data.train.categorical[:, kind].tolist() == expected
    for name, length in (("hist", slice(-4, None)), ("pages", slice(5))):
        ragged = data.train.sequences[name]
        for row in range(200):
            tokens = both.raw["train"][row][name].split("^")[length]
            kept = ragged.values[ragged.offsets[row] : ragged.offsets[row + 1]].tolist()
            assert kept == [vocabulary[name][token] for token in tokens]
    run = train(experiment, data, torch.device("cpu"), both.there / "checkpoints/x")
    best = run.metrics["best"]
    assert np.isfinite([best["AUC"], best["logloss"], best["gAUC"]]).all()


@pytest.mark.parametrize("name", METRICS)
def test_metrics_have_the_same_values(both: Both, name: str) -> None:
    predictions = both.predictions
    ours = evaluate(predictions["label"], predictions["logit"], [name], group=predictions["group"])
    assert ours[name] == pytest.approx(both.side["metrics"][name], abs=1e-9)
