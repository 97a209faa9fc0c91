"""The layers of the code, highest first: a module imports from its own layer or from lower ones.

`tests/test_layers.py` checks it; CONTRIBUTING.md has the same table.
"""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """Packages and modules below `tossctr` on one level.

    Attributes:
        name: of the layer.
        contents: what is in it, in a line.
        packages: folders and single modules of `src/tossctr`.
    """

    name: str
    contents: str
    packages: tuple[str, ...]


LAYERS = (
    Layer(
        "entry points",
        "the command line and the Python interface: parse, call one function, print or return",
        ("__main__", "cli", "commands", "api"),
    ),
    Layer("applications", "the report; the bridge to FuxiCTR", ("report", "interop")),
    Layer(
        "experiments",
        "several runs: folds, blends, recipes, comparison, search, leaderboard",
        ("experiments", "tuning"),
    ),
    Layer("pipeline", "one run from raw files to a submission", ("pipeline",)),
    Layer("runs", "training an experiment into a run's folder, and opening it", ("runs",)),
    Layer("inference", "fitted models to predictions of raw rows, calibrated", ("inference",)),
    Layer("calibration", "held-out predictions, and probabilities from them", ("calibration",)),
    Layer("families", "what is trained, behind one interface and in one registry", ("families",)),
    Layer("trees", "the family of gradient-boosted trees", ("trees",)),
    Layer("training", "the family of networks: loop, checkpoints, memory plan", ("training",)),
    Layer("models", "one file a model that reads like its paper; shared layers", ("models",)),
    Layer("cluster", "several processes and machines, on torchrun or Ray", ("cluster",)),
    Layer("data", "sources, encoder, store, loader, synthetic rows", ("data",)),
    Layer("config", "YAML in FuxiCTR's dialect to typed, immutable objects", ("config",)),
    Layer(
        "base",
        "metrics, files and folders, errors, progress",
        (
            "artefact", "errors", "files", "folders", "layers", "location", "metrics", "outputs",
            "printable", "progress", "redaction", "waiting",
        ),
    ),
)  # fmt: skip
