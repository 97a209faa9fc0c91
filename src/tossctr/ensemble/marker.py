"""The JSON files that say what folds and blends are made of, with hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tossctr.errors import UserError
from tossctr.files import sha256_of


def read_marker(path: Path, version: int) -> dict[str, Any]:
    """The content of a marker.

    Raises:
        UserError: missing, no such file, or of another version.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError("nothing finished here", file=path, remedy="make it first") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("cannot be read", file=path, remedy="make it again") from error
    if not isinstance(content, dict) or content.get("version") != version:
        raise UserError(f"is not of version {version}", file=path, remedy="make it again")
    return content


def verified(file: Path, digest: str) -> Path:
    """The file, if its content is still what a marker says.

    Raises:
        UserError: missing or changed.
    """
    if not file.is_file():
        raise UserError("is not there any more", file=file, remedy="make it again")
    if sha256_of(file) != digest:
        raise UserError("has changed since it was used here", file=file, remedy="make it again")
    return file
