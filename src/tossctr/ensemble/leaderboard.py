"""Every finished run, folds and blend under a folder, from their files alone."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tossctr.config.identity import MANNER
from tossctr.ensemble import blend, folds
from tossctr.evaluation.metrics import METRICS
from tossctr.progress import say
from tossctr.training.run_folder import FOLDS

# What two trainings of one config may differ in.
_NOT_CONFIG = {"seed", *MANNER}
_SHORT = 8  # characters of a hash


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: the folder, seen from the root.
        kind: `blend` is out of fold where its members are.
        model: of a blend, its members.
        config: hash of model and training without seeds and paths; of a blend, of its members'.
        data: hash of the encoder that was fit on the training rows.
        metrics: raw ones: of a run on its validation part, else out of fold.
        score: the competition score after calibration (cross-fitted); None where never calibrated.
        cross_validated: of folds, mean and standard deviation of the metrics over folds; of a
            blend, of its scores after calibration; None of a run.
        rows_per_s: training throughput, mean over folds; None of a blend.
        megabytes: of all weights.
    """

    name: str
    kind: Literal["run", "folds", "blend"]
    model: str
    config: str
    data: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, float]
    score: float | None
    cross_validated: Mapping[str, Mapping[str, float]] | None
    rows_per_s: float | None
    megabytes: float


def leaderboard(root: Path) -> list[Entry]:
    """The table, best calibrated score first, then those without one; a folder whose files cannot
    be read is named and left out."""
    found = []
    for marker in _markers(root):
        try:
            found.append(_entry(marker, root))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            say(f"left out: {marker.parent} cannot be read ({type(error).__name__}: {error})")
    return sorted(found, key=lambda e: (e.score is None, -(e.score or 0.0), e.name))


def _markers(root: Path) -> Iterator[Path]:
    for name in ("run.json", folds.MARKER, blend.MARKER):
        for path in sorted(root.rglob(name)):
            parents = path.relative_to(root).parts[:-1]
            inside_folds = name == "run.json" and FOLDS in parents
            if not inside_folds and not any(p.endswith((".partial", ".old")) for p in parents):
                yield path


def _entry(marker: Path, root: Path) -> Entry:
    folder = marker.parent
    name = folder.relative_to(root).as_posix()
    score = _score(folder)
    if marker.name == blend.MARKER:
        about = _json(marker)
        members = [_entry((folder / m["marker"]).resolve(), Path("/")) for m in about["members"]]
        return Entry(
            name=name,
            kind="blend",
            model=" + ".join(m.model for m in members),
            config=_hash([m.config for m in members]),
            data=_same([m.data for m in members]),
            seeds=tuple(sorted({seed for m in members for seed in m.seeds})),
            metrics=about["metrics"],
            score=score,
            cross_validated=about["methods"][about["combination"]["method"]],
            rows_per_s=None,
            megabytes=sum(m.megabytes for m in members),
        )
    runs = [folder]
    cross_validated, metrics, seeds = None, None, None
    if marker.name == folds.MARKER:
        about = _json(marker)
        runs = [folder / run for run in about["runs"]]
        cross_validated, metrics = about["cross_validated"], about["metrics"]
        seeds = tuple(about["seeds"])
    experiment = _json(runs[0] / "experiment.json")
    training = [_json(run / "metrics.json") for run in runs]
    best = training[0]["best"]
    return Entry(
        name=name,
        kind="run" if metrics is None else "folds",
        model=experiment["model"],
        config=_config(experiment),
        data=_json(runs[0] / "run.json")["sha256"]["encoder.json"][:_SHORT],
        seeds=seeds or (experiment["training"]["seed"],),
        metrics=metrics or {key: best[key] for key in METRICS},
        score=score,
        cross_validated=cross_validated,
        rows_per_s=statistics.fmean(t["rows_per_s"] for t in training),
        megabytes=sum(f.stat().st_size for run in runs for f in run.glob("model.*")) / 1e6,
    )


def _score(folder: Path) -> float | None:
    path = folder / "calibration_competition_score.json"
    return float(_json(path)["after"]["competition_score"]) if path.is_file() else None


def _config(experiment: Mapping[str, Any]) -> str:
    training = {k: v for k, v in experiment["training"].items() if k not in _NOT_CONFIG}
    parts = (experiment["model"], experiment["dataset"]["dataset_id"])
    return _hash([*parts, training, experiment["hyperparameters"]])


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


def _same(hashes: list[str]) -> str:
    return hashes[0] if len(set(hashes)) == 1 else _hash(hashes)


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
