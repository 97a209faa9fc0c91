"""The contract of what predicts raw rows: a run, the folds of one, or a blend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tossctr.calibration.held_out import HeldOut
from tossctr.config.choices import Objective
from tossctr.config.schema import DatasetConfig, Experiment
from tossctr.data.encoder import EncodingReport
from tossctr.data.sources.opening import say_order
from tossctr.files import sha256_of
from tossctr.inference.predict import (
    BATCH_ROWS,
    FittedModel,
    Predictions,
    open_rows,
    predict_source,
)
from tossctr.location import Location, name_of
from tossctr.progress import track


class Predictor(ABC):
    """One or more fitted models whose logits are combined. Everything above `runs` knows only this.

    Attributes:
        held_out_name: the file with its held-out predictions, in its folder.
        folder: where it is kept.
    """

    held_out_name: ClassVar[str]
    folder: Path

    @property
    @abstractmethod
    def marker(self) -> Path:
        """The file that is written last and hashes everything the predictions depend on."""

    @property
    @abstractmethod
    def members(self) -> tuple[tuple[FittedModel, ...], ...]:
        """Each is one model, or several on one encoder (folds), whose logits are averaged."""

    @property
    @abstractmethod
    def held_out_metrics(self) -> Mapping[str, float]:
        """Metrics of its held-out predictions before calibration."""

    @abstractmethod
    def held_out(self, device: torch.device) -> HeldOut:
        """Predictions of labelled rows that no model was trained on.

        Args:
            device: where to predict them if they are not kept.

        Raises:
            UserError: they cannot be read, are of another predictor, or cannot be made again.
        """

    def combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(members, N) logits to (N,)."""
        if len(logits) != 1:
            raise ValueError(f"{len(logits)} members and no way to combine them")
        alone: NDArray[np.float64] = logits[0]
        return alone

    def logits(
        self,
        source: Location,
        *,
        device: torch.device,
        labelled: bool = False,
        id_col: str | None = None,
        report: EncodingReport | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[Predictions]:
        """Predict a Parquet, CSV or H5 file, or a folder of Parquet files, `batch_rows` rows at a
        time; nothing else is held in memory. Each member reads the file once.

        Args:
            source: rows in the raw layout of the data set, or encoded with its vocabulary.
            device: where to predict.
            labelled: read the label column too.
            id_col: read this column as ids; without it the ids of rows are their numbers.
            report: counts unseen categories and missing values, as the first member sees them.
            start, stop: the rows to predict; `stop` of None is the end.
            batch_rows: rows in a batch.

        Yields:
            `Predictions` of consecutive rows, in the file's order.

        Raises:
            UserError: a missing column or an unreadable value, by file, column and row; a file made
                with another vocabulary.
        """
        first, *others = self.members
        predict = partial(
            predict_source, device=device, start=start, stop=stop, batch_rows=batch_rows
        )
        rows = open_rows(first[0], source, labelled=labelled, id_col=id_col)
        streams = [
            predict(first, rows, labelled=labelled, id_col=id_col, report=report),
            *(predict(models, open_rows(models[0], source)) for models in others),
        ]
        say_order(rows)
        with track(f"predict {name_of(source)}", rows.num_rows) as advance:
            advance(start)
            for of_members in zip(*streams, strict=True):
                logit = self.combine(np.stack([p.logit for p in of_members]))
                yield replace(of_members[0], logit=logit)
                advance(len(logit))

    @property
    def held_out_file(self) -> Path:
        """Where its held-out predictions are kept."""
        return self.folder / self.held_out_name

    @property
    def digest(self) -> str:
        """SHA-256 of the marker: the same predictor, the same predictions."""
        return sha256_of(self.marker)

    @property
    def experiment(self) -> Experiment:
        """Of its first model: how labels and ids are named, and where the files are."""
        return self.members[0][0].experiment

    @property
    def dataset(self) -> DatasetConfig:
        """The data set that it was trained on."""
        return self.experiment.dataset

    @property
    def objective(self) -> Objective:
        """What its predictions are calibrated for by default."""
        return self.dataset.objective
