"""Open what can score: a run, the folds of one, a blend."""

from __future__ import annotations

from pathlib import Path

from tossctr.artefact import HELD_OUT_BYTES
from tossctr.calibration.held_out import OUT_OF_FOLD
from tossctr.experiments import folds
from tossctr.experiments.combination import Combination
from tossctr.experiments.marker import BLEND_MARKER, FOLDS_MARKER, read_blend, verified
from tossctr.inference.predictor import Scorer, members_of
from tossctr.location import resolved
from tossctr.runs.run_folder import Run, load_run


def open_scorer(path: Path, *, prefer_folds: bool = False) -> Run | Scorer:
    """Open a folder by what it holds: `blend.json`, `folds.json`, or a run.

    Args:
        path: the folder, or its marker.
        prefer_folds: where there are finished folds beside a run, take these; without a run they
            are taken anyway.

    Raises:
        UserError: nothing finished there, or something has changed since.
    """
    folder = path.parent if path.suffix == ".json" else path
    beside = folds.folds_of(folder)
    has_run = (folder / "run.json").is_file()
    if (folder / BLEND_MARKER).is_file():
        return load_blend(folder)
    if (folder / FOLDS_MARKER).is_file():
        return folds.load_folds(folder)
    if (beside / FOLDS_MARKER).is_file() and (prefer_folds or not has_run):
        return folds.load_folds(beside)
    return load_run(path)


def load_blend(folder: Path) -> Scorer:
    """Open a blend with its members, which are where they were seen from its folder.

    Raises:
        UserError: a member or the blend has changed since.
    """
    marker = folder / BLEND_MARKER
    about = read_blend(marker)
    verified(folder / OUT_OF_FOLD, about.out_of_fold, limit=HELD_OUT_BYTES)
    members: list[tuple[Run, ...]] = []
    for member in about.members:
        # By the name of its marker, never another blend: a blend could lead to itself.
        found = verified(resolved(folder / member.marker), member.sha256)
        single = found.name == "run.json"
        members += members_of(load_run(found) if single else folds.load_folds(found.parent))
    state = about.combination
    return Scorer(
        marker,
        tuple(members),
        Combination(state.method, state.weights, state.knots),
        about.metrics,
        about.objective,
    )
