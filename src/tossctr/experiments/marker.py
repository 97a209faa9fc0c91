"""Schemas of `folds.json` and `blend.json`, which hold the hashes of all that they refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tossctr.artefact import SMALL_BYTES, Artefact, Sha256, read_artefact, sha256_of_regular
from tossctr.calibration.objectives import AIMS
from tossctr.config.choices import FoldMethod, Method, Objective
from tossctr.errors import UserError
from tossctr.experiments.combination import Combination
from tossctr.metrics.registry import default_metrics
from tossctr.metrics.uncertainty import MeanStd

FOLDS_MARKER, BLEND_MARKER = "folds.json", "blend.json"
MAX_RUNS = 1_000  # of folds and seeds
MAX_MEMBERS = 100  # of a blend

Metrics = dict[str, float]


class FoldsMarker(Artefact):
    """`folds.json`; `runs` (by folder) and `by_fold` are ordered by seed, then fold."""

    version: Literal[2]
    method: FoldMethod
    folds: int = Field(ge=2, le=MAX_RUNS)
    seeds: tuple[int, ...] = Field(min_length=1, max_length=MAX_RUNS)
    runs: dict[str, Sha256] = Field(max_length=MAX_RUNS)
    out_of_fold: Sha256
    metrics: Metrics
    by_fold: tuple[Metrics, ...]
    cross_validated: dict[str, MeanStd]
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


class BlendResult(Artefact):
    """The scores of a blend on held-out rows.

    The rows of a fold were used neither to train the members nor to fit the weights and the
    calibration (prior shift and Platt) that it is scored with. Yet the scores are slightly
    optimistic: each member stopped at the best epoch on the rows it held out, and the method is
    selected by the scores of these same folds.

    Attributes:
        objective: what the weights are fit for.
        singles, methods: scores over folds of each member and of each combination method.
        best_single: the member with the best mean of the objective's metric.
        gain: difference of the scores to those of `best_single`, over folds; negative if lower is
            better (WLL, logloss) and the blend is better.
    """

    objective: Objective
    combination: Combination
    singles: dict[str, dict[str, MeanStd]]
    methods: dict[Method, dict[str, MeanStd]]
    best_single: str
    gain: dict[str, MeanStd]


class BlendMarker(BlendResult):
    """`blend.json`."""

    version: Literal[2]
    members: tuple[Member, ...] = Field(min_length=2, max_length=MAX_MEMBERS)
    out_of_fold: Sha256
    metrics: Metrics

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
    return read_artefact(path, FoldsMarker, remedy="train the folds again: tossctr train --folds")


def read_blend(path: Path) -> BlendMarker:
    """Read `blend.json`; errors as of `read_folds`."""
    return read_artefact(path, BlendMarker, remedy="blend again: tossctr blend")


def verified(file: Path, digest: str, *, limit: int = SMALL_BYTES) -> Path:
    """The file, if it has at most `limit` bytes and this SHA-256.

    Raises:
        UserError: missing or changed.
    """
    if sha256_of_regular(file, limit=limit) != digest:
        raise UserError("has changed since it was used", file=file, remedy="make it again")
    return file
