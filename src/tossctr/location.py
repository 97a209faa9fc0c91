"""Where raw files are: paths of this machine, and URLs of object stores through fsspec."""

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
ANSWER_SECONDS = 20  # between two pieces of an answer; a file may take as long as it likes


def located(value: Any) -> Path | str:
    """A text with `://` as it is (`file://`: the path), any other as a path.

    Raises:
        ValueError: neither a text nor a path.
    """
    if not isinstance(value, str | Path):
        raise ValueError("is neither a path nor a URL")
    text = str(value)
    if text.startswith(_LOCAL):
        return Path(text.removeprefix(_LOCAL))
    return text.rstrip("/") if _SCHEME in text else Path(text)


# A path, or the URL of a file or of a folder (s3://bucket/prefix) as text.
# Secrets in it are not written.
Location = Annotated[
    Path | str,
    PlainValidator(located),
    PlainSerializer(lambda location: redacted(str(location)), when_used="json"),
]


def name_of(location: Location) -> str:
    """The last part, for progress and messages, without secrets."""
    return PurePosixPath(redacted(str(location))).name


def beside(location: Location, name: str) -> Path | None:
    """That file in the same folder; None where the folder is not this machine's."""
    return location.parent / name if isinstance(location, Path) else None


def resolved(path: Path) -> Path:
    """What a path leads to, absolute; the link itself where links go round in a circle, for which
    `Path.resolve` raises a RuntimeError before Python 3.13."""
    return Path(os.path.realpath(path))


def same_place(one: Location, other: Location) -> bool:
    """Whether both lead to the same file or folder, however they are written; nothing is opened."""
    if isinstance(one, str) or isinstance(other, str):
        return str(one).rstrip("/") == str(other).rstrip("/")
    try:
        return one.samefile(other)
    except OSError:  # one is not there (yet)
        return resolved(one) == resolved(other)


def require_readable(path: Path) -> None:
    """Raises:
    UserError: there is nothing, or neither a file nor a folder: a pipe or a device cannot be read
        twice.
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
    """Whether there is a file or a folder.

    Raises:
        UserError: the store cannot be reached.
    """
    if isinstance(location, Path):
        return location.exists()
    with file_system(location) as (system, path):
        try:
            system.info(path)  # `exists` takes a server that does not answer for one without it
        except FileNotFoundError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return False
        return True


def require_file(path: Path) -> None:
    """Check that there is a regular file: a pipe or a device would be waited for without end.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise UserError(problem, file=path, remedy="check the path")


def is_folder(location: Location) -> bool:
    """Whether it is a folder, or a prefix of an object store.

    Raises:
        UserError: the store cannot be reached.
    """
    if isinstance(location, Path):
        return location.is_dir()
    with file_system(location) as (system, path):
        return bool(system.isdir(path))


def opened(url: str) -> BinaryIO:
    """A file of an object store for reading at any place; each read is one request.

    Raises:
        UserError: it is not there, or the store cannot be reached.
    """
    with file_system(url) as (system, path):
        file: BinaryIO = system.open(path, "rb", cache_type="none")
        return file


def stamp(location: Location) -> dict[str, Any]:
    """Of one file: `size` in bytes, and what changes when it does: `mtime_ns` of a path; of a URL
    the `etag`, or the time `modified`, where the store has one.

    Raises:
        UserError: there is no such file.
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
    """The file system of a URL and the path in it.

    Raises:
        UserError: no such protocol, its package is not installed, or the store refuses.
    """
    from fsspec.core import url_to_fs

    protocol = url.split(_SCHEME)[0]
    if is_redacted(url):
        raise UserError(
            "the password or token of this URL was not kept",
            file=url,
            remedy="give the whole URL again, with --data or in the data set's config",
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
        # fsspec's HTTP client calls missing what it could not ask for, too.
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
    except Exception as error:  # each store's client has errors of its own
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> UserError:
    return UserError(
        f"cannot be reached: {type(error).__name__}: {str(error)[:200]}",
        file=url,
        remedy="check the URL, the credentials and the network",
    )


def _patience(protocol: str) -> dict[str, Any]:
    """How long to wait for an answer, in the words of a protocol's client; those of other protocols
    have limits of their own (`FSSPEC_<PROTOCOL>` sets them)."""
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
