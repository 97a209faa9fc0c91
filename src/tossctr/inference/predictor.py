"""What scores files beyond a single run: the folds of one, and blends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tossctr.config.choices import Objective
from tossctr.config.schema import Experiment
from tossctr.runs.run_folder import Run

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scorer:
    """Runs whose logits are combined.

    Attributes:
        marker: the file that names and hashes all that it is made of; its folder is the scorer's.
        members: each is one run, or runs on one encoder (its folds), whose logits are averaged.
        combine: (members, N) logits to (N,).
        held_out_metrics: of its held-out predictions, as they are: not calibrated.
        objective: what it was made for.
    """

    marker: Path
    members: tuple[tuple[Run, ...], ...]
    combine: Callable[[Floats], Floats]
    held_out_metrics: Mapping[str, float]
    objective: Objective

    @property
    def folder(self) -> Path:
        return self.marker.parent

    @property
    def experiment(self) -> Experiment:
        """Of the first run: where files are that nobody names."""
        return self.members[0][0].experiment


def marker_of(run: Run | Scorer) -> Path:
    """The file whose hash stands for all that scores depend on."""
    return run.marker if isinstance(run, Scorer) else run.folder / "run.json"


def objective_of(run: Run | Scorer) -> Objective:
    """What its predictions are calibrated for unless somebody asks for something else."""
    return run.objective if isinstance(run, Scorer) else run.experiment.dataset.objective


def members_of(run: Run | Scorer) -> tuple[tuple[Run, ...], ...]:
    """As `Scorer.members`: a single run is its only member."""
    return run.members if isinstance(run, Scorer) else ((run,),)
