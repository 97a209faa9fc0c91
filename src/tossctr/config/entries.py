"""Read entries of the YAML files by id: experiments and data sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tossctr.config.fuxictr import Dialect
from tossctr.config.messages import ErrorContext, refuse_unknown, suggestion
from tossctr.config.yaml_file import read_mapping
from tossctr.errors import UserError
from tossctr.location import Location
from tossctr.progress import say


def read_entry(
    config_dir: Path, name: str, entry_id: str
) -> tuple[Path, dict[str, Any], frozenset[str]]:
    """Read an entry, with the keys of `Base` as defaults.

    Args:
        config_dir: folder of `<name>.yaml`, of `<name>/*.yaml`, or of both.
        name: model_config or dataset_config.
        entry_id: a top-level key of one of these files.

    Returns:
        Its file, its keys and values, and the keys that are not from `Base`.

    Raises:
        UserError: no such file or entry, the same id twice, or not a mapping.
    """
    files, found = _entries(config_dir, name)
    base = found.pop("Base", (files[0], None))
    if entry_id not in found:
        what = "experiment" if name == "model_config" else "data set"
        raise UserError(
            f"there is no {what} {entry_id}",
            file=files[0] if len(files) == 1 else files[-1].parent,
            remedy=suggestion(entry_id, found, otherwise="add it to the file"),
        )
    file, content = found[entry_id]
    own = _mapping(entry_id, file, content)
    return file, {**_mapping("Base", *base), **own}, frozenset(own)


def entry_ids(config_dir: Path, name: str) -> list[str]:
    """All ids, in the order of the files."""
    return [key for key in _entries(config_dir, name)[1] if key != "Base"]


def _entries(config_dir: Path, name: str) -> tuple[list[Path], dict[str, tuple[Path, Any]]]:
    single, folder = config_dir / f"{name}.yaml", config_dir / name
    files = [single] * single.is_file() + sorted(folder.glob("*.yaml"))
    if not files:
        raise UserError("no such file", file=single, remedy="give its folder with --config")
    found: dict[str, tuple[Path, Any]] = {}
    for file in files:
        for key, value in read_mapping(file).items():
            if key in found:
                raise UserError(
                    f"{key} is also in {found[key][0]}", file=file, remedy="keep one of the two"
                )
            found[key] = (file, value)
    return files, found


def _mapping(key: str, file: Path, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ErrorContext(file, key).error("", "must be a mapping of keys to values", value=value)
    return {str(k): v for k, v in value.items()}


def own_keys(
    values: Mapping[str, Any], dialect: Dialect, own: Collection[str], context: ErrorContext
) -> dict[str, Any]:
    """Translate FuxiCTR's keys to TossCTR's, with a message for keys without effect.

    Raises:
        UserError: an unknown or unsupported key.
    """
    translated, dropped = dialect.translate(values, own, context)
    refuse_unknown(translated, own, context)
    for key in dropped:
        say(f"{context.file}: {context.entry}.{key} has no effect: {dialect.without_effect[key]}")
    return translated


def absolute(path: Location, config_dir: Path) -> Location:
    """A path relative to the project's root (the parent of `config_dir`) as absolute; a URL
    unchanged."""
    return path if isinstance(path, str) else config_dir.resolve().parent / path
