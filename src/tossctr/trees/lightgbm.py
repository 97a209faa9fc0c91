"""LightGBM (Ke et al., NIPS 2017) on `TreeFeatures`: predicts encoded rows block by block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
from lightgbm.basic import LightGBMError
from numpy.typing import NDArray

from tossctr.data.rows import EncodedRows
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.training.family import TrainedModel
from tossctr.trees.features import BLOCK_ROWS, TreeFeatures
from tossctr.trees.model_text import check_model, without_tail

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


class LightGBM(TrainedModel):
    """A trained booster and the features that make its columns."""

    def __init__(self, features: TreeFeatures, booster: lgb.Booster) -> None:
        self.features, self.booster = features, booster

    def logits(
        self,
        rows: EncodedRows,
        *,
        device: torch.device | None = None,
        batch_rows: int = BLOCK_ROWS,
    ) -> NDArray[np.float64]:
        """As `training.family.TrainedModel.logits`, on the CPU and in blocks of `BLOCK_ROWS`."""
        out = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(rows))
            columns = self.features.transform(rows, start, stop, out_of_fold=False)
            out[start:stop] = np.asarray(self.booster.predict(columns, raw_score=True))
        return out

    @classmethod
    def load(cls, features: TreeFeatures, file: Path) -> LightGBM:
        """Read a file of `save_booster`, validated by `check_model` before LightGBM parses it.

        Raises:
            UserError: not a LightGBM model, or one of other columns.
        """
        try:
            text = file.read_bytes().decode("ascii")
            check_model(text, len(features.names))
            booster = lgb.Booster(model_str=text)
        except (LightGBMError, ValueError) as error:
            raise UserError(
                f"not a LightGBM model that fits the config: {str(error).splitlines()[0]}",
                file=file,
                remedy="train again",
            ) from error
        return cls(features, booster)


def save_booster(booster: lgb.Booster, file: Path, rounds: int) -> None:
    """Write the first `rounds` trees in LightGBM's text format."""
    text = without_tail(booster.model_to_string(num_iteration=rounds))
    with whole_file(file) as temporary:
        temporary.write_text(text, encoding="ascii")


class ColumnSequence(lgb.Sequence):
    """Columns of stored rows for `lgb.Dataset`, which reads blocks, and a sample row by row."""

    batch_size = BLOCK_ROWS

    def __init__(self, features: TreeFeatures, rows: EncodedRows, *, out_of_fold: bool) -> None:
        self._features, self._rows, self._out_of_fold = features, rows, out_of_fold
        self._start, self._block = -1, np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Array:
        if isinstance(index, slice):
            return self._transform(index.start, index.stop)
        start = int(index) // BLOCK_ROWS * BLOCK_ROWS  # samples come in ascending order
        if start != self._start:
            self._block = self._transform(start, min(start + BLOCK_ROWS, len(self)))
            self._start = start
        row: Array = self._block[int(index) - start].astype(np.float64)
        return row

    def _transform(self, start: int, stop: int) -> Array:
        return self._features.transform(self._rows, start, stop, out_of_fold=self._out_of_fold)
