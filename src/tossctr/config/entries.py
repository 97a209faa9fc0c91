"""Entries of the YAML files by id, and what experiments and data sets share in reading them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tossctr.config.fuxictr import Dialect
from tossctr.config.messages import Place, refuse_unknown, suggestion
from tossctr.config.yaml_file import read_mapping
from tossctr.errors import UserError
from tossctr.location import Location
from tossctr.progress import say


def read_entry(
    config_dir: Path, name: str, entry_id: str
) -> tuple[Path, dict[str, Any], frozenset[str]]:
    """The file that holds an entry, the entry's keys over those of `Base`, and which are its own.

    Args:
        config_dir: folder of `<name>.yaml`, of `<name>/*.yaml`, or of both.
        name: model_config or dataset_config.
        entry_id: a key at the top level of one of these files.

    Raises:
        UserError: no such file or entry, the same id in two files, not a mapping.
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
    """Every id that `read_entry` knows, file by file in the order written."""
    return [key for key in _entries(config_dir, name)[1] if key != "Base"]


def _entries(config_dir: Path, name: str) -> tuple[list[Path], dict[str, tuple[Path, Any]]]:
    single, folder = config_dir / f"{name}.yaml", config_dir / name
    files = [single] * single.is_file() + sorted(folder.glob("*.yaml"))
    if not files:
        raise UserError(
            "no such file", file=single, remedy="name the folder that holds it with --config"
        )
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
        raise Place(file, key).error("", "must be a mapping of keys to values", value=value)
    return {str(k): v for k, v in value.items()}


def own_keys(
    values: Mapping[str, Any], dialect: Dialect, own: Collection[str], place: Place
) -> dict[str, Any]:
    """`values` with FuxiCTR's keys translated; those without effect are named to the user.

    Raises:
        UserError: a key that cannot be honoured, or an unknown one.
    """
    translated, dropped = dialect.translate(values, own, place)
    refuse_unknown(translated, own, place)
    for key in dropped:
        say(f"{place.file}: {place.entry}.{key} has no effect: {dialect.without_effect[key]}")
    return translated


def absolute(path: Location, config_dir: Path) -> Location:
    """`path` relative to the project's root, the folder above `config_dir`; a URL as it is."""
    return path if isinstance(path, str) else config_dir.resolve().parent / path
