"""A run's folder: written while a model is trained, read when the run has finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tossctr.artefact import opened, sha256_of_regular
from tossctr.errors import UserError
from tossctr.folders import MADE_FROM
from tossctr.training.checkpoint import write_tensors

WEIGHTS = "model.safetensors"
AGAIN = "train again"


class TrainingFolder:
    """Best weights and checkpoints of a training.

    Attributes:
        folder: of the unfinished run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints to resume from."""
        return self.folder / "checkpoints"

    @property
    def training(self) -> str:
        """A hash of the config and data of the unfinished run."""
        return sha256_of_regular(self.folder / MADE_FROM, remedy="give --fresh")

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Save these weights as the best so far."""
        write_tensors(
            self.folder / WEIGHTS, {k: v.detach().cpu().contiguous() for k, v in state.items()}
        )

    def best(self) -> dict[str, Tensor]:
        """The best weights so far; empty before the first validation."""
        file = self.folder / WEIGHTS
        return load_file(file) if file.exists() else {}

    def forget_best(self) -> None:
        """Remove the best weights, as before the first validation."""
        (self.folder / WEIGHTS).unlink(missing_ok=True)


class FinishedFolder:
    """A finished run's files, each verified before it is used.

    Args:
        folder: of the run.
        hashes: SHA-256 by file name, as the training recorded them.
    """

    def __init__(self, folder: Path, hashes: Mapping[str, str]) -> None:
        self.folder = folder
        self._hashes = hashes

    def verify(self, name: str, limit: int | None = None) -> Path:
        """The path of a file that has not changed since training.

        Args:
            name: of the file.
            limit: its maximum size in bytes.

        Raises:
            UserError: it is missing, too large, or has changed.
        """
        file = self.folder / name
        if sha256_of_regular(file, limit=limit, remedy=AGAIN) != self._hashes.get(name):
            raise UserError("has changed since training", file=file, remedy=AGAIN)
        return file

    @property
    def weights_bytes(self) -> int:
        """Size of the file of weights; 0 if it is missing."""
        file = self.folder / WEIGHTS
        return file.stat().st_size if file.is_file() else 0

    def tensors(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights, with the names, shapes and types of `expected`.

        The header is compared first: it bounds the file's size, so that the content can be hashed
        and loaded.

        Raises:
            UserError: another header, or the file has changed.
        """
        file = self.folder / WEIGHTS
        with opened(file, remedy=AGAIN):
            pass  # a regular file: opening a pipe would wait
        wanted = {name: (list(v.shape), v.dtype) for name, v in expected.items()}
        try:
            with safe_open(file, "pt") as weights:
                slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
                found = {
                    name: (list(part.get_shape()), _DTYPES.get(part.get_dtype()))
                    for name, part in slices.items()
                }
        except safetensors.SafetensorError as error:
            raise UserError(f"not a safetensors file: {error}", file=file, remedy=AGAIN) from error
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise UserError(
                    f"the weights do not fit the config: {name} should be "
                    f"{_shown(wanted.get(name))}",
                    file=file,
                    value=_shown(found.get(name)),
                    remedy=AGAIN,
                )
        return load_file(self.verify(WEIGHTS))


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _shown(tensor: tuple[list[int], torch.dtype | None] | None) -> str:
    return "absent" if tensor is None else f"{tensor[1]} {tensor[0]}"
