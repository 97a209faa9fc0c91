"""Checkpoints without pickle: one safetensors file, whose metadata holds as JSON what is no tensor.

Nothing that is loaded can run code, and a file that is not what was written is refused: its
metadata carries the SHA-256 of its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import save_file
from torch import Tensor

from tossctr.artefact import opened
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.progress import say

KEPT = 2
_PATTERN = "step-*.safetensors"


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints in our format."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def path_of_step(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many optimiser steps goes."""
    return folder / f"step-{step:09d}.safetensors"


def keep_newest(folder: Path) -> None:
    """Remove all checkpoints but the two newest."""
    for path in sorted(folder.glob(_PATTERN))[:-KEPT]:
        path.unlink()


def newest(folder: Path, training: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole and of this training, and what it holds; a damaged one,
    or one of another training, is passed over.

    Args:
        folder: of the checkpoints.
        training: what they are of, as `Checkpoints` was given it.
    """
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        try:
            found = read_checkpoint(path)
            if found.get("training") != training:
                raise UserError("the checkpoint is of another training", file=path)
            return path, found
        except UserError as error:
            say(f"{error.line()}: going back to the one before")
    return None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file whole.

    Raises:
        UserError: the disk refuses.
    """
    with whole_file(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata={"format": "pt", **(metadata or {})})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error  # a full disk, in that library's words


def write_checkpoint(path: Path, state: Any) -> None:
    """Write nested dictionaries, lists, tuples, tensors and plain values.

    Raises:
        UserError: the disk refuses.
        TypeError: a value of another kind.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, tensors))
    write_tensors(path, tensors, {"state": text, "sha256": _digest(text, tensors)})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; tensors are on the CPU.

    Raises:
        UserError: not such a file, or its content has changed.
    """
    try:
        with opened(path):
            pass  # a regular file: opening a pipe would wait
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        if _digest(text, tensors) != metadata["sha256"]:
            raise ValueError("content and hash differ")
        found = _unpacked(json.loads(text), tensors)
        if not isinstance(found, dict):
            raise TypeError("not a dictionary")
        return found
    except (
        OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError("the checkpoint is damaged", file=path) from error


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    # JSON's own objects stand for what JSON lacks; so a dictionary is a list of its items.
    match value:
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().contiguous().clone()  # nothing shared, all its own
            return {"tensor": name}
        case Mapping():
            return {"dict": [[k, _packed(v, tensors)] for k, v in value.items()]}
        case tuple():
            return {"tuple": [_packed(v, tensors) for v in value]}
        case list():
            return [_packed(v, tensors) for v in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint cannot hold {type(value)}")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": items}:
            return {k: _unpacked(v, tensors) for k, v in items}
        case {"tuple": items}:
            return tuple(_unpacked(v, tensors) for v in items)
        case list():
            return [_unpacked(v, tensors) for v in value]
    return value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
