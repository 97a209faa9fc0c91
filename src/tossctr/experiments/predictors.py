"""Predictors of several runs: the folds of an experiment and blends; opening any predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.artefact import HELD_OUT_BYTES
from tossctr.calibration.held_out import OUT_OF_FOLD, HeldOut, read_held_out
from tossctr.config.choices import Objective
from tossctr.errors import UserError
from tossctr.experiments.combination import Combination
from tossctr.experiments.marker import (
    BLEND_MARKER,
    FOLDS_MARKER,
    read_blend,
    read_folds,
    verified,
)
from tossctr.inference.predictor import Predictor
from tossctr.location import resolved
from tossctr.runs.marker import RUN_MARKER
from tossctr.runs.run import Run
from tossctr.runs.run_folder import load_run


@dataclass(frozen=True)
class _OfSeveral(Predictor):
    """A predictor of several runs, with its predictions out of fold.

    Attributes:
        runs: of each member.
        metrics: of the out-of-fold predictions.
    """

    folder: Path
    runs: tuple[tuple[Run, ...], ...]
    metrics: Mapping[str, float]

    held_out_name: ClassVar[str] = OUT_OF_FOLD

    @property
    def members(self) -> tuple[tuple[Run, ...], ...]:
        return self.runs

    @property
    def held_out_metrics(self) -> Mapping[str, float]:
        return self.metrics


class Folds(_OfSeveral):
    """The runs of an experiment's folds, one member: their mean logit."""

    @property
    def marker(self) -> Path:
        return self.folder / FOLDS_MARKER

    def held_out(self, device: torch.device) -> HeldOut:
        """The out-of-fold predictions.

        Raises:
            UserError: as `read_held_out`, or they are not out of fold.
        """
        held = read_held_out(self.held_out_file)
        if held.split != "train" or held.fold is None:
            raise UserError(
                "holds predictions without folds", file=self.held_out_file, remedy="train again"
            )
        return held


@dataclass(frozen=True)
class Blend(_OfSeveral):
    """Runs and folds, each a member, whose logits are combined.

    Attributes:
        fitted_for: the objective of the combination.
    """

    combination: Combination
    fitted_for: Objective

    @property
    def marker(self) -> Path:
        return self.folder / BLEND_MARKER

    @property
    def objective(self) -> Objective:
        return self.fitted_for

    def combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.combination(logits)

    def held_out(self, device: torch.device) -> HeldOut:
        """The blend of its members' held-out predictions; errors as `read_held_out`."""
        return read_held_out(self.held_out_file)


def folds_of(run: Path) -> Path:
    """The folder of the folds of an experiment whose run is in `run`."""
    return run.with_name(f"{run.name}.folds")


def load_predictor(path: Path, *, prefer_folds: bool = False) -> Predictor:
    """Open a blend, folds or a run, whichever marker the folder has.

    Args:
        path: the folder, or its marker.
        prefer_folds: open finished folds next to a run rather than the run; without a run they are
            opened in any case.

    Raises:
        UserError: nothing finished there, or a file has changed since.
    """
    folder = path.parent if path.suffix == ".json" else path
    beside = folds_of(folder)
    has_run = (folder / RUN_MARKER).is_file()
    if (folder / BLEND_MARKER).is_file():
        return load_blend(folder)
    if (folder / FOLDS_MARKER).is_file():
        return load_folds(folder)
    if (beside / FOLDS_MARKER).is_file() and (prefer_folds or not has_run):
        return load_folds(beside)
    return load_run(path)


def load_folds(folder: Path) -> Folds:
    """Open finished folds.

    Raises:
        UserError: missing, of another version, or changed since.
    """
    marker = folder / FOLDS_MARKER
    about = read_folds(marker)
    verified(folder / OUT_OF_FOLD, about.out_of_fold, limit=HELD_OUT_BYTES)
    runs = tuple(
        load_run(verified(folder / name / RUN_MARKER, digest).parent)
        for name, digest in about.runs.items()
    )
    if len({run.encoder.hash for run in runs}) != 1:
        raise UserError("have different vocabularies", file=marker, remedy="train again")
    return Folds(folder, (runs,), about.metrics)


def load_blend(folder: Path) -> Blend:
    """Open a blend with its members, whose paths are relative to its folder.

    Raises:
        UserError: a member or the blend has changed since.
    """
    marker = folder / BLEND_MARKER
    about = read_blend(marker)
    verified(folder / OUT_OF_FOLD, about.out_of_fold, limit=HELD_OUT_BYTES)
    members: list[tuple[Run, ...]] = []
    for member in about.members:
        # A member is never a blend, which could contain itself.
        found = verified(resolved(folder / member.marker), member.sha256)
        if found.name == RUN_MARKER:
            members.append((load_run(found),))
        else:
            members += load_folds(found.parent).runs
    return Blend(folder, tuple(members), about.metrics, about.combination, about.objective)
