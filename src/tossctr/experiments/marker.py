"""Schemas of `folds.json` and `blend.json`, which hold the hashes of all that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from tossctr.artefact import SMALL_BYTES, Artefact, Sha256, read_artefact, sha256_of_regular
from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import FoldMethod, Method, Objective
from tossctr.errors import UserError
from tossctr.metrics.registry import default_metrics

FOLDS_MARKER, BLEND_MARKER = "folds.json", "blend.json"
MAX_RUNS = 1_000  # of folds and seeds
MAX_MEMBERS = 100  # of a blend

Metrics = dict[str, float]


class OverFolds(Artefact):
    """A `MeanStd`; older `folds.json` files lack `error`."""

    mean: float
    std: float
    error: float | None = None


class FoldsMarker(Artefact):
    """`folds.json`; `runs` (by folder) and `by_fold` are ordered by seed, then fold."""

    version: Literal[1]
    method: FoldMethod
    folds: int = Field(ge=2, le=MAX_RUNS)
    seeds: tuple[int, ...] = Field(min_length=1, max_length=MAX_RUNS)
    runs: dict[str, Sha256] = Field(max_length=MAX_RUNS)
    out_of_fold: Sha256
    metrics: Metrics
    by_fold: tuple[Metrics, ...]
    cross_validated: dict[str, OverFolds]
    standard_error: Metrics

    @model_validator(mode="after")
    def _check(self) -> FoldsMarker:
        expected = [f"seed_{seed}/fold_{k}" for seed in self.seeds for k in range(self.folds)]
        if list(self.runs) != expected:
            raise ValueError("runs do not match seeds and folds")
        if len(self.by_fold) != len(expected):
            raise ValueError("by_fold does not match runs")
        for metrics in (self.metrics, self.cross_validated, *self.by_fold):
            _require(metrics, default_metrics())
        return self


class Member(Artefact):
    """A member of a blend: its `run.json` or `folds.json`, relative to the blend's folder."""

    name: str
    marker: str = Field(pattern=r"(^|/)(run|folds)\.json$", max_length=4096)
    sha256: Sha256


class CombinationState(Artefact):
    """`Combination` as JSON."""

    method: Method
    weights: tuple[float, ...] = Field(min_length=2, max_length=MAX_MEMBERS)
    knots: tuple[tuple[float, ...], ...] = Field(max_length=MAX_MEMBERS)

    @model_validator(mode="after")
    def _check(self) -> CombinationState:
        weights = np.array(self.weights)
        if not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:  # False for NaN
            raise ValueError("weights must be at least 0 and sum to 1")
        if len(self.knots) != (len(weights) if self.method == "rank_mean" else 0):
            raise ValueError("knots do not match the members")
        for knots in self.knots:
            if not knots or len(knots) % 2 or not np.isfinite(knots).all():
                raise ValueError("knots must be pairs of finite numbers")
            x, y = np.split(np.array(knots), 2)
            if not ((np.diff(x) > 0).all() and (np.diff(y) > 0).all()):
                raise ValueError("knots must be increasing")
        return self


class BlendMarker(Artefact):
    """`blend.json`."""

    version: Literal[2]
    objective: Objective
    members: tuple[Member, ...] = Field(min_length=2, max_length=MAX_MEMBERS)
    out_of_fold: Sha256
    metrics: Metrics
    combination: CombinationState
    singles: dict[str, dict[str, OverFolds]]
    methods: dict[Method, dict[str, OverFolds]]
    best_single: str
    gain: dict[str, OverFolds]

    @model_validator(mode="after")
    def _check(self) -> BlendMarker:
        names = [member.name for member in self.members]
        if list(self.singles) != names:  # nor has a name occurred twice
            raise ValueError("singles do not match the members")
        if len({member.marker for member in self.members}) != len(names):
            raise ValueError("a member is repeated")
        if self.best_single not in names:
            raise ValueError("best_single is not a member")
        if len(self.combination.weights) != len(names):
            raise ValueError("weights do not match the members")
        _require(self.methods, [self.combination.method])
        _require(self.metrics, default_metrics())
        for scores in (*self.singles.values(), *self.methods.values(), self.gain):
            _require(scores, AIMS[self.objective].scores)
            if any(found.error is None for found in scores.values()):
                raise ValueError("an error is missing")
        return self


def _require(found: Any, names: Any) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{missing[0]} is missing")


def read_folds(path: Path) -> FoldsMarker:
    """Read `folds.json`.

    Raises:
        UserError: missing, damaged, or of another version.
    """
    return read_artefact(path, FoldsMarker)


def read_blend(path: Path) -> BlendMarker:
    """Read `blend.json`; errors as of `read_folds`."""
    return read_artefact(path, BlendMarker)


def verified(file: Path, digest: str, *, limit: int = SMALL_BYTES) -> Path:
    """The file, if it has at most `limit` bytes and this SHA-256.

    Raises:
        UserError: missing or changed.
    """
    if sha256_of_regular(file, limit=limit) != digest:
        raise UserError("has changed since it was used", file=file, remedy="make it again")
    return file
