"""YAML as configs need it: plain values only, each key once, `1e-3` a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tossctr.errors import UserError


class _DuplicateKey(Exception):
    """The same key twice in one mapping; plain YAML would keep the last without a word."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Looked at before `<<` is merged, where an entry may well repeat a key to override it.
        node = super().compose_mapping_node(anchor)
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise _DuplicateKey(
                    f"line {line}: {key.value} is given twice (first on line {seen[key.value]})"
                )
            seen[key.value] = line
        return node


# YAML 1.1 reads 1e-3 and 1.0e3 as text, for want of a point or a sign.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_mapping(file: Path) -> dict[str, Any]:
    """The top level of a YAML file, id -> entry.

    Raises:
        UserError: unreadable, not UTF-8, not YAML (with the line), a key twice, not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8 text", file=file, remedy="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from error
    content = _load(text, file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            "must be a mapping of ids to entries",
            file=file,
            value=content,
            remedy="write `id:` lines",
        )
    return {str(key): value for key, value in content.items()}


def parse_value(text: str, written: str) -> Any:
    """The value of one `--set key=value`, as YAML; `written` is shown in messages.

    Raises:
        UserError: not YAML.
    """
    return _load(text, written)


def _load(text: str, file: Path | str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: plain values only
    except _DuplicateKey as error:
        raise UserError(str(error), file=file, remedy="keep one of the two") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(
            f"{where}not valid YAML: {error.problem or error.context}",
            file=file,
            remedy="check indentation, brackets and quotes there",
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a value that looks like a date but is none, such as 2024-13-01.
        raise UserError(f"not valid YAML: {error}", file=file) from error
