"""What `run.json` and `metrics.json` of a run hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tossctr.artefact import Artefact, Sha256

RUN_MARKER = "run.json"
VERSION = 3  # of it


class RunMarker(Artefact):
    """`run.json`: SHA-256 of each file that scores depend on, and of what is shown of a run."""

    version: Literal[3]
    sha256: dict[str, Sha256]


class TrainingMetrics(Artefact):
    """`metrics.json`: what a training measured.

    Attributes:
        best, history: a validation's metrics by name, with its epoch and step.
        parameters: trainable numbers; of trees, leaves.
        importance: of trees, share of the whole gain by column.
        finished: when, as ISO 8601.
    """

    best: dict[str, float]
    history: list[dict[str, float]]
    parameters: int = Field(ge=0, lt=2**63)
    trained_rows: int | None = Field(None, ge=0, lt=2**63)
    rows_per_s: float
    seconds: float
    skipped_batches: int = Field(ge=0, lt=2**63)
    importance: dict[str, float] | None = None
    peak_mb: float
    finished: str = Field(max_length=40)

    @model_validator(mode="after")
    def _whole(self) -> TrainingMetrics:
        for row in (self.best, *self.history):
            if not {"epoch", "step", "monitor"} <= row.keys():
                raise ValueError("a validation without epoch, step and monitor")
        return self
