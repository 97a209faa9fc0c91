"""All finished runs, folds and blends under a folder, read from their JSON files."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from tossctr.artefact import HELD_OUT_BYTES, Artefact, read_artefact, sha256_of_regular
from tossctr.calibration.calibrate import read_calibration
from tossctr.calibration.held_out import OUT_OF_FOLD, VALIDATION
from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import OBJECTIVES, Objective
from tossctr.config.identity import MANNER
from tossctr.config.schema import DatasetConfig, TrainingConfig
from tossctr.errors import UserError
from tossctr.experiments.marker import BLEND_MARKER, FOLDS_MARKER, read_blend, read_folds, verified
from tossctr.folders import is_made, is_unfinished
from tossctr.location import resolved
from tossctr.metrics.registry import default_metrics
from tossctr.metrics.uncertainty import MeanStd
from tossctr.progress import say
from tossctr.runs.marker import RunMarker, TrainingMetrics

# Keys that are not part of the config hash.
_NOT_CONFIG = {"seed", *MANNER}
_SHORT = 8  # characters of a hash


class _Experiment(Artefact):
    """`experiment.json`; the model's options are not validated, as their classes import torch."""

    version: Literal[2]
    expid: str
    model: str
    dataset: DatasetConfig
    training: TrainingConfig
    hyperparameters: dict[str, JsonValue]


@dataclass(frozen=True)
class Entry:
    """One row of the leaderboard.

    Attributes:
        name: the folder, relative to the root.
        model: of a blend, those of its members, joined by " + ".
        config: hash of model and training config without seeds and paths; of a blend, of its
            members' hashes.
        data: hash of the encoder that was fit on the training rows.
        metrics: before calibration: of a run on its validation split, else out of fold.
        objective: of the data set, or of the blend.
        score: the objective's metric after cross-fitted calibration; None if not calibrated.
        cross_validated: of folds, the metrics over folds; of a blend, its scores after calibration
            over folds; None for a run.
        rows_per_s: training throughput, mean over folds; None for a blend.
        megabytes: size of all weights.
    """

    name: str
    kind: Literal["run", "folds", "blend"]
    model: str
    config: str
    data: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, float]
    objective: Objective
    score: float | None
    cross_validated: Mapping[str, MeanStd] | None
    rows_per_s: float | None
    megabytes: float


def leaderboard(root: Path) -> list[Entry]:
    """All entries, sorted by objective, then the best score first, those without a score last.
    Folders whose files cannot be read are logged and left out."""
    found = []
    for marker in _markers(root):
        try:
            found.append(_entry(marker, root))
        except UserError as error:
            say(f"left out: {marker.parent}: {error.line()}")

    def key(entry: Entry) -> tuple[int, bool, float, str]:
        worse = -AIMS[entry.objective].sign * (entry.score or 0.0)
        return OBJECTIVES.index(entry.objective), entry.score is None, worse, entry.name

    return sorted(found, key=key)


def _markers(root: Path) -> Iterator[Path]:
    for name in ("run.json", FOLDS_MARKER, BLEND_MARKER):
        for path in sorted(root.rglob(name)):
            parents = path.relative_to(root).parents
            inside_folds = name == "run.json" and any(is_made(root / p, "folds") for p in parents)
            if not inside_folds and not any(is_unfinished(p.name) for p in parents):
                yield path


def _entry(marker: Path, root: Path) -> Entry:
    name = marker.parent.relative_to(root).as_posix()
    if marker.name == BLEND_MARKER:
        return _of_blend(marker, name)
    return _of_folds(marker, name) if marker.name == FOLDS_MARKER else _of_run(marker, name)


def _of_blend(marker: Path, name: str) -> Entry:
    about = read_blend(marker)
    # A member is never a blend, which could contain itself.
    paths = [verified(resolved(marker.parent / m.marker), m.sha256) for m in about.members]
    members = [_entry(path, Path("/")) for path in paths]
    return Entry(
        name=name,
        kind="blend",
        model=" + ".join(m.model for m in members),
        config=_hash([m.config for m in members]),
        data=_same([m.data for m in members]),
        seeds=tuple(sorted({seed for m in members for seed in m.seeds})),
        metrics=about.metrics,
        objective=about.objective,
        score=_score(marker.parent, OUT_OF_FOLD, about.objective, about.metrics),
        cross_validated=about.methods[about.combination.method],
        rows_per_s=None,
        megabytes=sum(m.megabytes for m in members),
    )


def _of_folds(marker: Path, name: str) -> Entry:
    about = read_folds(marker)
    runs = [
        _of_run(verified(marker.parent / run / "run.json", digest), run)
        for run, digest in about.runs.items()
    ]
    return replace(
        runs[0],
        name=name,
        kind="folds",
        seeds=about.seeds,
        metrics=about.metrics,
        score=_score(marker.parent, OUT_OF_FOLD, runs[0].objective, about.metrics),
        cross_validated=about.cross_validated,
        rows_per_s=statistics.fmean(run.rows_per_s or 0.0 for run in runs),
        megabytes=sum(run.megabytes for run in runs),
    )


def _of_run(marker: Path, name: str) -> Entry:
    folder = marker.parent
    hashes = read_artefact(marker, RunMarker).sha256
    for file in ("experiment.json", "metrics.json"):
        verified(folder / file, hashes.get(file, ""))
    experiment = read_artefact(folder / "experiment.json", _Experiment, remedy="train again")
    training = read_artefact(folder / "metrics.json", TrainingMetrics)
    missing = [key for key in default_metrics() if key not in training.best]
    if missing:
        raise UserError(f"has no {missing[0]}", file=folder / "metrics.json", remedy="train again")
    metrics = {key: training.best[key] for key in default_metrics()}
    return Entry(
        name=name,
        kind="run",
        model=experiment.model,
        config=_config(experiment),
        data=hashes.get("encoder.json", "")[:_SHORT],
        seeds=(experiment.training.seed,),
        metrics=metrics,
        objective=experiment.dataset.objective,
        score=_score(folder, VALIDATION, experiment.dataset.objective, metrics),
        cross_validated=None,
        rows_per_s=training.rows_per_s,
        megabytes=sum(f.stat().st_size for f in folder.glob("model.*")) / 1e6,
    )


def _score(
    folder: Path, held_out: str, objective: Objective, raw: Mapping[str, float]
) -> float | None:
    """The objective's metric after calibration; None if it was not calibrated on the held-out
    predictions in the folder."""
    metric = AIMS[objective].metric
    if objective == "raw":
        return raw[metric]
    file = folder / held_out
    if not os.path.lexists(file):
        return None
    digest = sha256_of_regular(file, limit=HELD_OUT_BYTES)
    kept = read_calibration(folder / f"calibration_{objective}.json", digest)
    return None if kept is None else kept.after.get(metric)


def _config(experiment: _Experiment) -> str:
    training = experiment.training.model_dump(mode="json", exclude=_NOT_CONFIG)
    parts = (experiment.model, experiment.dataset.dataset_id)
    return _hash([*parts, training, experiment.hyperparameters])


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def _same(hashes: list[str]) -> str:
    return hashes[0] if len(set(hashes)) == 1 else _hash(hashes)
