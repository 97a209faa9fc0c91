"""A trained run on disk: one folder that holds all that scoring needs, and no code.

experiment.json     the resolved config
encoder.json        vocabularies, ranges, fill values
features.json       the fields as the model sees them
model.safetensors   the best weights; of trees, what makes their columns
model.txt           only of trees: the trees, in LightGBM's text format
metrics.json        validation after each epoch, and which was best
logs/               TensorBoard and CSV
validation.parquet  predictions of the validation part, for calibration; names run.json
made_from.json      config, encoder and data: where they are the same, nothing is trained again
run.json            version and hashes; written last, so its presence means "whole"
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tossctr.artefact import (
    ENCODER_BYTES,
    SMALL_BYTES,
    TREES_BYTES,
    opened,
    read_artefact,
    sha256_of_regular,
)
from tossctr.config.identity import identity
from tossctr.config.schema import Experiment
from tossctr.data.encoder import Encoder
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.families.experiment import read_experiment, save_experiment
from tossctr.files import remove, sha256_of, write_json, writing
from tossctr.folders import (
    MADE_FROM,
    find_unfinished,
    made_from_of,
    new_unfinished,
    put_in_place,
    refuse_foreign,
    remove_made,
    unfinished,
    write_made_from,
)
from tossctr.models import build_model
from tossctr.models.base import CTRModel
from tossctr.progress import say
from tossctr.runs.marker import VERSION, RunMarker, TrainingMetrics
from tossctr.runs.results import append_result
from tossctr.training.checkpoint import write_tensors
from tossctr.trees.config import LightGBMConfig
from tossctr.trees.features import TreeFeatures
from tossctr.trees.lightgbm import BOOSTER, LightGBM

CHECKPOINTS = 3  # version of what is in a checkpoint
WEIGHTS = "model.safetensors"
RUN = "run.json"
EXPERIMENT = "experiment.json"
AGAIN = "train again"
_LIMITS = {
    EXPERIMENT: SMALL_BYTES,
    "encoder.json": ENCODER_BYTES,
    "features.json": SMALL_BYTES,
    "metrics.json": SMALL_BYTES,
}
HASHED = (*_LIMITS, WEIGHTS)


@dataclass(frozen=True)
class Run:
    """A trained model with everything that turns raw rows into its logits."""

    folder: Path
    experiment: Experiment
    encoder: Encoder
    features: FeatureMap
    model: CTRModel | LightGBM
    metrics: dict[str, Any]


class RunWriter:
    """Writes a run beside its final place and puts it there whole.

    An earlier run in the same place stays until `place`, which keeps it under another name. What an
    earlier writer left unfinished is continued if it was made from the same, and otherwise stays
    where it is: `begin` decides. Of several processes only one begins and writes.

    Args:
        final: the final place.

    Attributes:
        folder: where the run is while it is unfinished; known once `begin` has been called.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.folder = final

    @property
    def checkpoints(self) -> Path:
        """Where training keeps what it needs to resume."""
        return self.folder / "checkpoints"

    def begin(
        self,
        experiment: Experiment,
        encoder: Encoder,
        features: FeatureMap,
        *,
        data: Mapping[str, Any],
        fresh: bool = False,
    ) -> None:
        """Make the unfinished run's folder, or keep what is there: the same training, unfinished or
        in its final place.

        Args:
            experiment, encoder, features: what the run is made from, and keeps.
            data: says which rows the run is trained on.
            fresh: continue nothing, and train again.

        Raises:
            UserError: the final place holds what is no run of ours, or the disk refuses.
        """
        made_from = json.loads(
            json.dumps(
                {
                    "version": VERSION,
                    "checkpoints": CHECKPOINTS,
                    "experiment": identity(experiment),
                    "encoder": encoder.hash,
                    "features": features.model_dump(mode="json"),
                    "data": dict(data),
                }
            )
        )
        refuse_foreign(self.final, "run")
        requested = find_unfinished(self.final, "run", _FRESH)
        same = find_unfinished(self.final, "run", made_from)
        if fresh or requested is not None:
            if same is not None:
                remove_made(same, "run")
        elif same is not None:
            self.folder = same
            if not self.finished:  # its hash is in run.json then
                save_experiment(experiment, same / EXPERIMENT)
            return
        elif _is_whole(self.final, made_from):
            self.folder = self.final
            return
        for folder, of in unfinished(self.final, "run"):
            if of != _FRESH:
                say(f"an unfinished training of another config or other data stays in {folder}")
        self.folder = requested or new_unfinished(self.final, "run")
        self.checkpoints.mkdir(exist_ok=True)
        save_experiment(experiment, self.folder / EXPERIMENT)
        encoder.save(self.folder)
        write_json(self.folder / "features.json", features.model_dump(mode="json"))
        write_made_from(self.folder, made_from)

    def request_fresh(self) -> None:
        """Let the next `begin`, of whatever process, continue nothing."""
        if find_unfinished(self.final, "run", _FRESH) is None:
            write_made_from(new_unfinished(self.final, "run"), _FRESH)

    @property
    def training(self) -> str:
        """Stands for all that the unfinished run is made from."""
        return sha256_of_regular(self.folder / MADE_FROM, remedy="give --fresh")

    @property
    def finished(self) -> bool:
        """Whether the run is whole."""
        return (self.folder / RUN).is_file()

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Save these weights as the best so far."""
        write_tensors(
            self.folder / WEIGHTS, {k: v.detach().cpu().contiguous() for k, v in state.items()}
        )

    def best(self) -> dict[str, Tensor]:
        """The best weights so far; none before the first validation."""
        file = self.folder / WEIGHTS
        return load_file(file) if file.exists() else {}

    def forget_best(self) -> None:
        """Go back to before the first validation."""
        (self.folder / WEIGHTS).unlink(missing_ok=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics and hashes; the run is whole then.

        Raises:
            UserError: the disk refuses.
        """
        finished = datetime.now().astimezone().isoformat(timespec="milliseconds")
        write_json(self.folder / "metrics.json", {**metrics, "finished": finished})
        names = [*HASHED, BOOSTER] if (self.folder / BOOSTER).is_file() else HASHED
        hashes = {name: sha256_of(self.folder / name) for name in names}
        write_json(self.folder / RUN, {"version": VERSION, "sha256": hashes})

    def place(self) -> None:
        """Put the whole run in its final place; an earlier one is kept under another name.

        Raises:
            UserError: the disk refuses, or the final place holds what is no run of ours.
        """
        experiment = read_experiment(self.folder / EXPERIMENT)
        metrics = read_artefact(self.folder / "metrics.json", TrainingMetrics, remedy=AGAIN)
        append_result(self.final.parent, experiment, metrics.best, metrics.finished)
        with writing(self.folder):
            remove(self.checkpoints)
        put_in_place(self.folder, self.final, "run")


_FRESH = {"fresh": True}  # what an unfinished folder says that is only a request


def _is_whole(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether it holds a finished run of this training, with its files as they were written."""
    if made_from_of(folder, "run") != made_from:
        return False
    try:
        hashes = read_artefact(folder / RUN, RunMarker).sha256
        for name in (*HASHED, *{BOOSTER}.intersection(hashes)):
            _verify(folder / name, hashes, _LIMITS.get(name))
    except UserError:
        return False
    return True


def load_run(path: Path) -> Run:
    """Open a run's folder (or any file in it), its hashes verified.

    Raises:
        UserError: no run there, an unfinished or newer one, a changed file, files that do not fit
            one another; before anything is allocated.
    """
    folder = path if path.is_dir() or not path.suffix else path.parent
    marker = folder / RUN
    if not os.path.lexists(marker):
        raise UserError(
            "no finished run here", file=folder, remedy="train one first: tossctr train --expid ..."
        )
    hashes = read_artefact(marker, RunMarker, remedy=AGAIN).sha256
    for name, limit in _LIMITS.items():
        _verify(folder / name, hashes, limit)
    experiment = read_experiment(folder / EXPERIMENT)
    features = read_artefact(folder / "features.json", FeatureMap, remedy=AGAIN)
    found = read_artefact(folder / "metrics.json", TrainingMetrics, remedy=AGAIN)
    metrics = found.model_dump(exclude_none=True)
    encoder = Encoder.load(folder)
    _check_features(features, encoder, experiment, folder / "features.json")
    if isinstance(experiment.hyperparameters, LightGBMConfig):
        _verify(folder / BOOSTER, hashes, TREES_BYTES)
        columns = TreeFeatures(features, experiment.hyperparameters)
        _check_weights(columns.state(), folder / WEIGHTS, hashes)
        try:
            columns.load_state(load_file(folder / WEIGHTS))
        except ValueError as error:
            raise UserError(str(error), file=folder / WEIGHTS, remedy="train again") from error
        trees = LightGBM.load(columns, folder / BOOSTER)
        return Run(folder, experiment, encoder, features, trees, metrics)
    try:
        with torch.device("meta"):  # shapes without memory
            shapes = _built(experiment, features)
    except (RuntimeError, OverflowError) as error:
        raise UserError(
            f"no model can have these sizes: {str(error).splitlines()[0]}",
            file=folder / EXPERIMENT,
            remedy=AGAIN,
        ) from error
    _check_weights(shapes.state_dict(), folder / WEIGHTS, hashes)
    model = _built(experiment, features)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    return Run(folder, experiment, encoder, features, model.eval(), metrics)


def _built(experiment: Experiment, features: FeatureMap) -> CTRModel:
    return build_model(experiment.model, features, experiment.hyperparameters)


def _verify(file: Path, hashes: Mapping[str, str], limit: int | None) -> None:
    if sha256_of_regular(file, limit=limit, remedy=AGAIN) != hashes.get(file.name):
        raise UserError("has changed since training", file=file, remedy=AGAIN)


def _check_features(
    features: FeatureMap, encoder: Encoder, experiment: Experiment, file: Path
) -> None:
    try:
        expected = encoder.features.with_lengths(experiment.dataset, experiment.training.max_len)
    except KeyError:  # a field that the config does not have
        expected = None
    if features != expected:
        raise UserError("does not fit the encoder and the config", file=file, remedy=AGAIN)


def _check_weights(state: Mapping[str, Tensor], file: Path, hashes: Mapping[str, str]) -> None:
    """Compare names, shapes and types with the file's header, whose sizes are those of its data;
    then, as its size is known to be the model's, its hash."""
    with opened(file, remedy=AGAIN):
        pass  # a regular file: opening a pipe would wait
    expected = {k: (list(v.shape), v.dtype) for k, v in state.items()}
    try:
        with safe_open(file, "pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            found = {
                name: (list(part.get_shape()), _DTYPES.get(part.get_dtype()))
                for name, part in slices.items()
            }
    except safetensors.SafetensorError as error:
        raise UserError(f"not a safetensors file: {error}", file=file, remedy=AGAIN) from error
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"the weights do not fit the config: {name} should be {_shown(expected.get(name))}",
                file=file,
                value=_shown(found.get(name)),
                remedy=AGAIN,
            )
    _verify(file, hashes, None)


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _shown(tensor: tuple[list[int], torch.dtype | None] | None) -> str:
    return "absent" if tensor is None else f"{tensor[1]} {tensor[0]}"
