"""Checkpoints without pickle: one safetensors file, with everything but tensors as JSON metadata.

Loading cannot run code, and a changed file is refused: its metadata holds its content's SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from tossctr.artefact import opened
from tossctr.errors import UserError
from tossctr.files import whole_file
from tossctr.progress import say

KEPT = 2  # checkpoints
_PATTERN = "step-*.safetensors"


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint after `step` optimizer steps."""
    return folder / f"step-{step:09d}.safetensors"


def remove_old_checkpoints(folder: Path) -> None:
    """Remove all but the newest `KEPT` checkpoints."""
    for path in sorted(folder.glob(_PATTERN))[:-KEPT]:
        path.unlink()


def newest_checkpoint(folder: Path, training: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of this training, and its content; damaged checkpoints and those of
    other trainings are skipped.

    Args:
        folder: of the checkpoints.
        training: the training's hash, as passed to `Checkpoints`.
    """
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        try:
            found = read_checkpoint(path)
            if found.get("training") != training:
                raise UserError("the checkpoint belongs to another training", file=path)
            return path, found
        except UserError as error:
            say(f"{error.line()}: trying the previous one")
    return None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata={"format": "pt", **(metadata or {})})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error  # safetensors' error for a full disk


def write_checkpoint(path: Path, state: Any) -> None:
    """Write nested dictionaries, lists, tuples, tensors and plain values.

    Raises:
        UserError: the file cannot be written.
        TypeError: a value of another type.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, tensors))
    write_tensors(path, tensors, {"state": text, "sha256": _digest(text, tensors)})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of `write_checkpoint`; tensors are on the CPU.

    Raises:
        UserError: it is not such a file, or its content has changed.
    """
    try:
        with opened(path):
            pass  # checks that it is a regular file: opening a pipe would block
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
    # JSON objects mark types that JSON lacks; therefore a dictionary is written as a list of items.
    match value:
        case Tensor():
            name = str(len(tensors))
            tensors[name] = (
                value.detach().cpu().contiguous().clone()
            )  # safetensors refuses shared memory
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
