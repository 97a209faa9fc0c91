"""A run: one trained model as a predictor, with its validation part held out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from tossctr.calibration.held_out import VALIDATION, HeldOut, read_held_out, write_held_out
from tossctr.data.prepare import Prepared, open_prepared
from tossctr.errors import UserError
from tossctr.inference.calibrator import if_writable
from tossctr.inference.predict import FittedModel, predict_rows
from tossctr.inference.predictor import Predictor
from tossctr.runs.marker import RUN_MARKER


@dataclass(frozen=True)
class Run(FittedModel, Predictor):
    """A trained model in its folder."""

    held_out_name: ClassVar[str] = VALIDATION

    @property
    def marker(self) -> Path:
        return self.folder / RUN_MARKER

    @property
    def members(self) -> tuple[tuple[FittedModel, ...], ...]:
        return ((self,),)

    @property
    def held_out_metrics(self) -> Mapping[str, float]:
        best: dict[str, float] = self.metrics["best"]
        return best

    def held_out(self, device: torch.device) -> HeldOut:
        """The predictions of the validation part that training kept; without them they are made
        from the prepared data.

        Raises:
            UserError: the prepared data are missing or others by now; predictions of another run.
        """
        if os.path.lexists(self.held_out_file):
            return self.kept_held_out()
        try:
            data = open_prepared(self.dataset)
        except UserError as error:
            raise UserError(
                "has no held-out predictions, and there are no prepared data to compute them from",
                file=self.folder,
                remedy="prepare its data set again (to predict, --objective raw needs neither)",
            ) from error
        if data.encoder.hash != self.encoder.hash:
            raise UserError(
                "was prepared again after this run was trained",
                file=data.folder,
                remedy="train again (to predict, --objective raw needs no held-out predictions)",
            )
        return self.keep_held_out(data, device)

    def kept_held_out(self) -> HeldOut:
        """The predictions of the validation part that training kept.

        Raises:
            UserError: as `read_held_out`, or they are of another run.
        """
        held = read_held_out(self.held_out_file)
        if held.run != self.digest or held.split != "valid" or held.fold is not None:
            raise UserError(
                "holds predictions of another run",
                file=self.held_out_file,
                remedy="remove it: it is computed again from the prepared data",
            )
        return held

    def keep_held_out(self, data: Prepared, device: torch.device) -> HeldOut:
        """Predict a data set's validation part and keep that in the folder."""
        valid = replace(data.valid, features=self.features)
        group_id = self.experiment.training.group_id
        held = HeldOut(
            row=np.arange(len(valid)),
            label=np.asarray(valid.labels),
            logit=predict_rows(self, valid, device=device),
            prior=float(np.asarray(data.train.labels).mean(dtype=np.float64)),
            group=None if group_id is None else np.asarray(valid.groups(group_id)),
            run=self.digest,
        )
        with if_writable():
            write_held_out(self.held_out_file, held)
        return held
