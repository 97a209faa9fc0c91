"""Read files that somebody else may have changed: only regular files of a bounded size, and JSON
only if it fits a schema."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tossctr.errors import UserError

SMALL_BYTES = 64 << 20  # limit of JSON files that do not grow with the data
ENCODER_BYTES = 2 << 30  # limit of files with vocabularies
HELD_OUT_BYTES = 8 << 30  # limit of held-out predictions: 390 million rows
AGAIN = "make it again"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Artefact(BaseModel):
    """Base of the schemas: exact types, no unknown keys, immutable.

    A field may be a dataclass, with the same rules if its `__pydantic_config__` is `STRICT`.
    """

    model_config = STRICT


Schema = TypeVar("Schema", bound=BaseModel)


@contextmanager
def opened(
    file: Path, *, limit: int | None = None, remedy: str = AGAIN
) -> Iterator[BufferedReader]:
    """Open a regular file for reading. Pipes and links are refused.

    Args:
        file: the file; folders above it may be links.
        limit: the largest allowed size in bytes.
        remedy: for the error.

    Raises:
        UserError: missing, a link, a folder, a device or a pipe, not readable, or larger.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise UserError(_why(error), file=file, remedy=remedy) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UserError("is not a regular file", file=file, remedy=remedy)
    with os.fdopen(descriptor, "rb") as handle:
        if limit is not None and status.st_size > limit:
            raise UserError(
                f"is larger than the allowed {limit:,} bytes",
                file=file,
                value=status.st_size,
                remedy=remedy,
            )
        yield handle


def _why(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "is missing"
        case OSError(errno=errno.ELOOP):
            return "is a link, which is not followed"
        case OSError(strerror=str(reason)):
            return f"cannot be read: {reason}"
    return "cannot be read"


def read_bytes(file: Path, *, limit: int = SMALL_BYTES, remedy: str = AGAIN) -> bytes:
    """The content of a file; errors as `opened`."""
    with opened(file, limit=limit, remedy=remedy) as handle:
        try:
            return handle.read(limit + 1)[:limit]
        except OSError as error:
            raise UserError(_why(error), file=file, remedy=remedy) from error


def sha256_of_regular(file: Path, *, limit: int | None = SMALL_BYTES, remedy: str = AGAIN) -> str:
    """SHA-256 of a file's content, as hex; errors as `opened`."""
    with opened(file, limit=limit, remedy=remedy) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_json(file: Path, *, limit: int = SMALL_BYTES, remedy: str = AGAIN) -> Any:
    """JSON of bounded size and depth (the parser stops at 200 levels).

    Raises:
        UserError: as `opened`; or not JSON.
    """
    content = read_bytes(file, limit=limit, remedy=remedy)
    try:
        return pydantic_core.from_json(content)
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", file=file, remedy=remedy) from error


def read_artefact(
    file: Path, schema: type[Schema], *, limit: int = SMALL_BYTES, remedy: str = AGAIN
) -> Schema:
    """Read JSON that fits a schema.

    Raises:
        UserError: as `opened`; or the file is not JSON or does not fit the schema; names the key.
    """
    content = read_bytes(file, limit=limit, remedy=remedy)
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        if any(found["loc"] == ("version",) for found in error.errors(include_url=False)):
            problem = "was made by another version of TossCTR"
        else:
            problem = f"is damaged or of another version: {first_problem(error)}"
        raise UserError(problem, file=file, remedy=remedy) from error
    except RecursionError as error:
        raise UserError("is not JSON: nested too deeply", file=file, remedy=remedy) from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its own hash as `sha256`, for a JSON file whose hash no other file holds."""
    return {**content, "sha256": _digest(content)}


def unsealed(content: Any) -> dict[str, Any] | None:
    """The content that was given to `sealed`; None if it has changed since."""
    if not isinstance(content, dict):
        return None
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return rest if content.get("sha256") == _digest(rest) else None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_problem(error: ValidationError) -> str:
    """The first error of a schema, as `key: problem`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(str(part)[:60] for part in first["loc"])
    return f"{key}: {first['msg'][:200]}" if key else first["msg"][:200]
