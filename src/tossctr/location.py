"""Locations of raw files: local paths, and URLs of object stores through fsspec."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from pydantic import PlainSerializer, PlainValidator

from tossctr.errors import UserError
from tossctr.redaction import is_redacted, redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_SCHEME = "://"
_LOCAL = "file://"
ANSWER_SECONDS = 20  # between two packets; a whole file may take longer


def located(value: Any) -> Path | str:
    """A URL as text, anything else (also `file://`) as a path.

    Raises:
        ValueError: neither text nor a path.
    """
    if not isinstance(value, str | Path):
        raise ValueError("is neither a path nor a URL")
    text = str(value)
    if text.startswith(_LOCAL):
        return Path(text.removeprefix(_LOCAL))
    return text.rstrip("/") if _SCHEME in text else Path(text)


# A path, or as text the URL of a file or a folder (s3://bucket/prefix). Secrets are not serialized.
Location = Annotated[
    Path | str,
    PlainValidator(located),
    PlainSerializer(lambda location: redacted(str(location)), when_used="json"),
]


def name_of(location: Location) -> str:
    """The file name, for progress and messages, without secrets."""
    return PurePosixPath(redacted(str(location))).name


def beside(location: Location, name: str) -> Path | None:
    """A file of that name in the same folder; None for a URL."""
    return location.parent / name if isinstance(location, Path) else None


def resolved(path: Path) -> Path:
    """The absolute path with links resolved. For a circle of links it is the link itself, where
    `Path.resolve` raises RuntimeError before Python 3.13."""
    return Path(os.path.realpath(path))


def same_place(one: Location, other: Location) -> bool:
    """Whether both are the same file or folder; nothing is opened."""
    if isinstance(one, str) or isinstance(other, str):
        return str(one).rstrip("/") == str(other).rstrip("/")
    try:
        return one.samefile(other)
    except OSError:  # one does not exist (yet)
        return resolved(one) == resolved(other)


def require_readable(path: Path) -> None:
    """Check that a path is a file or a folder. Pipes and devices cannot be read twice.

    Raises:
        UserError: it is missing, or something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError("does not exist", file=path, remedy="check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", file=path, remedy="check the path") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(
            "is neither a file nor a folder", file=path, remedy="write its content to a file first"
        )


def exists(location: Location) -> bool:
    """Whether a file or a folder exists.

    Raises:
        UserError: the server cannot be reached.
    """
    if isinstance(location, Path):
        return location.exists()
    with file_system(location) as (system, path):
        try:
            system.info(path)  # `exists` returns False for an unreachable server
        except FileNotFoundError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return False
        return True


def require_file(path: Path) -> None:
    """Check that a path is a regular file: reading a pipe or a device may never end.

    Raises:
        UserError: it is missing, or something else.
    """
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise UserError(problem, file=path, remedy="check the path")


def is_folder(location: Location) -> bool:
    """Whether the location is a folder, or a prefix of an object store.

    Raises:
        UserError: the server cannot be reached.
    """
    if isinstance(location, Path):
        return location.is_dir()
    with file_system(location) as (system, path):
        return bool(system.isdir(path))


def opened(url: str) -> BinaryIO:
    """Open a file of an object store for random access; each read is one request.

    Raises:
        UserError: it does not exist, or the server cannot be reached.
    """
    with file_system(url) as (system, path):
        file: BinaryIO = system.open(path, "rb", cache_type="none")
        return file


def stamp(location: Location) -> dict[str, Any]:
    """Identifies the version of a file without reading it: `size` in bytes, and `mtime_ns` of a
    path; for a URL `etag`, or else the time `modified`, if the server gives one.

    Raises:
        UserError: it does not exist.
    """
    if isinstance(location, Path):
        require_file(location)
        stat = location.stat()
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with file_system(location) as (system, path):
        system.invalidate_cache()
        info = {str(k).lower(): v for k, v in system.info(path).items()}
    of = {"size": int(info["size"])}
    tags = ("etag", "md5hash", "md5", "content_md5")
    times = ("lastmodified", "last_modified", "mtime", "updated", "created")
    for name, keys in (("etag", tags), ("modified", times)):
        known = [str(info[key]) for key in keys if info.get(key)]
        if known:
            return {**of, name: known[0]}
    return of


@contextmanager
def file_system(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """The file system of a URL, and the path in it.

    Raises:
        UserError: an unknown protocol, its package is not installed, or the server fails.
    """
    from fsspec.core import url_to_fs

    protocol = url.split(_SCHEME)[0]
    if is_redacted(url):
        raise UserError(
            "the password or token of this URL was not saved",
            file=url,
            remedy="give the complete URL, with --data or in the data set's config",
        )
    try:
        system, path = url_to_fs(url, **_patience(protocol))
        yield system, path
    except ImportError as error:  # fsspec says which package
        raise UserError(
            f"{protocol}{_SCHEME} needs a package that is not installed",
            file=url,
            remedy=str(error).split(". ")[0],
        ) from error
    except (FileNotFoundError, TimeoutError) as error:
        # fsspec's HTTP client reports connection errors as missing files too.
        cause = error.__cause__ or error
        if isinstance(cause, TimeoutError):
            raise UserError(
                f"does not answer within {ANSWER_SECONDS} s",
                file=url,
                remedy="check the URL and the network, then give the same command again",
            ) from error
        if isinstance(cause, OSError) and cause is not error:
            raise _unreachable(url, cause) from error
        raise UserError("does not exist", file=url, remedy="check the URL") from error
    except Exception as error:  # every protocol's client has its own exceptions
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> UserError:
    return UserError(
        f"cannot be reached: {type(error).__name__}: {str(error)[:200]}",
        file=url,
        remedy="check the URL, the credentials and the network",
    )


def _patience(protocol: str) -> dict[str, Any]:
    """Timeouts as arguments of a protocol's client. Other protocols keep their defaults, which
    `FSSPEC_<PROTOCOL>` changes."""
    if protocol in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(
            total=None, sock_connect=ANSWER_SECONDS, sock_read=ANSWER_SECONDS
        )
        return {"client_kwargs": {"timeout": limit}}
    if protocol in ("s3", "s3a"):
        retries = {"max_attempts": 2}
        limits = {"connect_timeout": ANSWER_SECONDS, "read_timeout": ANSWER_SECONDS}
        return {"config_kwargs": {**limits, "retries": retries}}
    return {}
