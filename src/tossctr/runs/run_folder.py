"""A trained run on disk: a folder with everything that prediction needs, and no code.

experiment.json     the resolved config
encoder.json        vocabularies, ranges, fill values
features.json       the fields as the model sees them
model.safetensors   the best weights; of trees, the tables of their features
model.txt           only of trees: the trees, in LightGBM's text format
metrics.json        the metrics of each validation, and the best
logs/               TensorBoard and CSV
validation.parquet  predictions of the validation split, for calibration
made_from.json      config, encoder and data; if they are the same, nothing is trained again
run.json            version and hashes; written last, so its presence means that the run is complete
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tossctr.artefact import ENCODER_BYTES, SMALL_BYTES, read_artefact
from tossctr.config.identity import identity
from tossctr.config.schema import Experiment
from tossctr.data.encoder import Encoder
from tossctr.data.features import FeatureMap
from tossctr.errors import UserError
from tossctr.families.experiment import read_experiment, save_experiment
from tossctr.families.registry import family_of
from tossctr.files import remove, sha256_of, write_json, writing
from tossctr.folders import (
    find_same,
    find_unfinished,
    new_unfinished,
    put_in_place,
    write_made_from,
)
from tossctr.runs.marker import RUN_MARKER, VERSION, RunMarker, TrainingMetrics
from tossctr.runs.results import append_result
from tossctr.runs.run import Run
from tossctr.training.folder import AGAIN, WEIGHTS, FinishedFolder, TrainingFolder

CHECKPOINTS = 3  # version of what is in a checkpoint
EXPERIMENT = "experiment.json"
_LIMITS = {
    EXPERIMENT: SMALL_BYTES,
    "encoder.json": ENCODER_BYTES,
    "features.json": SMALL_BYTES,
    "metrics.json": SMALL_BYTES,
}
HASHED = (*_LIMITS, WEIGHTS)


class RunWriter(TrainingFolder):
    """Writes a run into a temporary folder and renames it when it is complete.

    An earlier run with the final name is kept under another name by `place`. `begin` resumes an
    unfinished run that was made from the same config and data; any other stays where it is. Of
    several processes only one begins and writes.

    Args:
        final: the run's final folder.

    Attributes:
        folder: of the unfinished run; known after `begin`.
    """

    def __init__(self, final: Path) -> None:
        super().__init__(final)
        self.final = final

    def begin(
        self,
        experiment: Experiment,
        encoder: Encoder,
        features: FeatureMap,
        *,
        data: Mapping[str, Any],
        fresh: bool = False,
    ) -> None:
        """Create the unfinished run's folder, or find the same training, unfinished or finished.

        Args:
            experiment, encoder, features: what the run is made from; written into its folder.
            data: identifies the rows that it is trained on.
            fresh: train again from the beginning.

        Raises:
            UserError: the final folder exists and is not a run of this package, or a write failed.
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
        requested = find_unfinished(self.final, "run", _FRESH)
        same = find_same(self.final, "run", made_from, fresh=fresh or requested is not None)
        files = family_of(experiment.model).files
        if same is not None and (same != self.final or _is_unchanged(same, files)):
            self.folder = same
            if not self.finished:  # then its hash is in run.json
                save_experiment(experiment, same / EXPERIMENT)
            return
        self.folder = requested or new_unfinished(self.final, "run")
        self.checkpoints.mkdir(exist_ok=True)
        save_experiment(experiment, self.folder / EXPERIMENT)
        encoder.save(self.folder)
        write_json(self.folder / "features.json", features.model_dump(mode="json"))
        write_made_from(self.folder, made_from)

    def request_fresh(self) -> None:
        """Make the next `begin`, in any process, start from the beginning."""
        if find_unfinished(self.final, "run", _FRESH) is None:
            write_made_from(new_unfinished(self.final, "run"), _FRESH)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.folder / RUN_MARKER).is_file()

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics and hashes, which complete the run.

        Raises:
            UserError: a write failed.
        """
        finished = datetime.now().astimezone().isoformat(timespec="milliseconds")
        write_json(self.folder / "metrics.json", {**metrics, "finished": finished})
        experiment = read_experiment(self.folder / EXPERIMENT)
        names = (*HASHED, *family_of(experiment.model).files)
        hashes = {name: sha256_of(self.folder / name) for name in names}
        write_json(self.folder / RUN_MARKER, {"version": VERSION, "sha256": hashes})

    def place(self) -> None:
        """Rename the complete run to its final folder; an earlier one is kept under another name.

        Raises:
            UserError: a write failed, or the final folder is not a run of this package.
        """
        experiment = read_experiment(self.folder / EXPERIMENT)
        metrics = read_artefact(self.folder / "metrics.json", TrainingMetrics, remedy=AGAIN)
        append_result(self.final.parent, experiment, metrics.best, metrics.finished)
        with writing(self.folder):
            remove(self.checkpoints)
        put_in_place(self.folder, self.final, "run")


_FRESH = {"fresh": True}  # made_from.json of a folder that only requests a fresh training


def _is_unchanged(folder: Path, files: Sequence[str]) -> bool:
    """Whether it is a finished run, with unchanged files."""
    try:
        finished = FinishedFolder(folder, read_artefact(folder / RUN_MARKER, RunMarker).sha256)
        for name in (*HASHED, *files):
            finished.verify(name, _LIMITS.get(name))
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
    marker = folder / RUN_MARKER
    if not os.path.lexists(marker):
        raise UserError(
            "has no finished run", file=folder, remedy="train one first: tossctr train --expid ..."
        )
    finished = FinishedFolder(folder, read_artefact(marker, RunMarker, remedy=AGAIN).sha256)
    for name, limit in _LIMITS.items():
        finished.verify(name, limit)
    experiment = read_experiment(folder / EXPERIMENT)
    features = read_artefact(folder / "features.json", FeatureMap, remedy=AGAIN)
    found = read_artefact(folder / "metrics.json", TrainingMetrics, remedy=AGAIN)
    encoder = Encoder.load(folder)
    _check_features(features, encoder, experiment, folder / "features.json")
    model = family_of(experiment.model).load(experiment, features, finished)
    metrics = found.model_dump(exclude_none=True)
    return Run(folder, experiment, encoder, features, model, metrics)


def _check_features(
    features: FeatureMap, encoder: Encoder, experiment: Experiment, file: Path
) -> None:
    try:
        expected = encoder.features.with_lengths(experiment.dataset, experiment.training.max_len)
    except KeyError:  # a field that the config does not have
        expected = None
    if features != expected:
        raise UserError("does not fit the encoder and the config", file=file, remedy=AGAIN)
