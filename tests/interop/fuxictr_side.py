"""What FuxiCTR does in `test_fuxictr.py`, run by the Python of a separate environment.

    python fuxictr_side.py TASKS.json

TASKS.json holds `build` (a data set's config), `steps` (folders of encoded files) and `metrics` (a
file of predictions and names); one process does all, as starting Ray takes longest. The result, the
last line of stdout, is JSON with the same keys.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def build(config: dict[str, Any]) -> list[str]:
    """Make `<data_root>/<dataset_id>` from raw CSV files."""
    from fuxictr.preprocess import FeatureProcessor, build_dataset

    processor = FeatureProcessor(**config)
    made = build_dataset(
        processor,
        train_data=config["train_data"],
        valid_data=config["valid_data"],
        data_format="csv",
        min_categr_count=1,
    )
    return [path for path in made if path]


def step(config: dict[str, Any]) -> dict[str, Any]:
    """One pass over the training file with a small model; loss before and after."""
    import torch
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    folder = Path(config["folder"])
    feature_map = FeatureMap(config["dataset_id"], str(folder))
    feature_map.load(str(folder / "feature_map.json"), {"embedding_dim": 4})
    train, valid = (str(folder / f"{part}.parquet") for part in ("train", "valid"))
    if config["format"] == "h5":
        import h5py

        train, valid = (path.replace(".parquet", ".npz") for path in (train, valid))
        for path in (train, valid):  # 2.3 reads .npz, of the same columns as earlier releases' .h5
            with h5py.File(path.replace(".npz", ".h5")) as file:
                np.savez(path, **{name: file[name][:] for name in file})

    class Small(BaseModel):
        def __init__(self) -> None:
            super().__init__(
                feature_map, model_id="small", model_root=str(folder), metrics=["AUC"], verbose=0
            )
            self.embedding_layer = FeatureEmbedding(feature_map, 4)
            width = feature_map.sum_emb_out_dim()
            self.mlp = MLP_Block(input_dim=width, output_dim=1, hidden_units=[8])
            self.compile("adam", "binary_crossentropy", 0.01)
            self.reset_parameters()

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
            return {"y_pred": self.output_activation(self.mlp(x))}

    torch.manual_seed(0)
    data = {"train_data": train, "valid_data": valid}
    form = "npz" if config["format"] == "h5" else "parquet"
    loader, valid_loader = RankDataLoader(
        feature_map, stage="train", batch_size=50, shuffle=False, data_format=form,
        num_workers=0, **data,
    )  # fmt: skip
    model = Small()
    model._max_gradient_norm = 10.0
    model.train()
    losses = [float(model.train_step(batch)) for _ in range(3) for batch in loader]
    batch = next(iter(valid_loader))
    return {
        "losses": losses,
        "rows": [loader.num_samples, valid_loader.num_samples],
        "first": {name: values[:5].tolist() for name, values in batch.items()},
        "sum_emb_out_dim": feature_map.sum_emb_out_dim(),
        "num_fields": feature_map.num_fields,
        "input_length": feature_map.input_length,
        "column_index": feature_map.column_index,
    }


def metrics(path: str, names: list[str]) -> dict[str, float]:
    """FuxiCTR's metrics of probabilities."""
    from fuxictr.metrics import evaluate_metrics

    data = np.load(path)
    found = evaluate_metrics(data["label"], data["probability"], names, data["group"])
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    tasks = json.loads(Path(sys.argv[1]).read_text())
    # First, as its worker processes are forked, which Ray's threads would not survive.
    found = metrics(*tasks["metrics"])
    result = {
        "metrics": found,
        "build": build(tasks["build"]),
        "steps": [step(task) for task in tasks["steps"]],
    }
    print(json.dumps(result))
