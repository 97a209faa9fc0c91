"""Read YAML configs: plain values only, unique keys, `1e-3` as a number, bounded size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tossctr.errors import UserError
from tossctr.location import require_readable

MAX_BYTES = 2 << 20  # per file
MAX_DEPTH = 50  # of nested values
MAX_NODES = 100_000  # with aliases expanded
MAX_DIGITS = 100  # per number
_STR, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Refused(Exception):
    """YAML that PyYAML accepts and we do not: duplicate keys, or more than the limits."""

    def __init__(self, node: yaml.Event | yaml.Node, problem: str, remedy: str) -> None:
        mark = node.start_mark
        super().__init__(problem if mark is None else f"line {mark.line + 1}: {problem}")
        self.remedy = remedy


class _Loader(yaml.SafeLoader):
    """Checks the limits while nodes are parsed, before any value is constructed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}  # nodes of each complete anchor, aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        event: yaml.NodeEvent = self.current_event  # set by check_event
        if is_alias and event.anchor is not None:
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _Refused(event, f"*{event.anchor} contains itself", "write its content")
            self._count(self._sizes.get(event.anchor, 1), event)
            return super().compose_node(parent, index)
        before = self._nodes
        self._count(1, event)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(event, f"nested more than {MAX_DEPTH} deep", "check the brackets")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _Refused(event, f"more than {MAX_NODES:,} values", "use fewer values or aliases")

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            raise _Refused(
                node, f"a number of {len(node.value):,} characters", "give a shorter one"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Before `<<` is merged: an entry may repeat a merged key to override it.
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise _Refused(
                    key,
                    f"{key.value} occurs twice (first on line {seen[key.value]})",
                    "keep one of the two",
                )
            seen[key.value] = key.start_mark.line + 1
            if key.tag != _MERGE:
                key.tag = _STR  # `on:` and `14:` are text
        return node


# YAML 1.1 reads 1e-3 and 1.0e3 as text, because the point or the sign is missing.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_mapping(file: Path) -> dict[str, Any]:
    """Read the top level of a YAML file: entries by id.

    Raises:
        UserError: the file is unreadable, not UTF-8, not YAML (with the line), not a mapping,
            repeats a key, or exceeds a limit.
    """
    try:
        require_readable(file)
        if file.stat().st_size > MAX_BYTES:
            raise UserError(
                f"is larger than {MAX_BYTES:,} bytes",
                file=file,
                remedy="give a config file or its folder",
            )
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
    """Parse the value of `--set key=value` as YAML; `written` is for errors.

    Raises:
        UserError: not YAML.
    """
    return _load(text, written)


def _load(text: str, file: Path | str) -> Any:
    try:
        return yaml.load(text, _Loader)  # derived from SafeLoader: plain values only
    except _Refused as error:
        raise UserError(str(error), file=file, remedy=error.remedy) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(
            f"{where}not valid YAML: {error.problem or error.context}",
            file=file,
            remedy="check indentation, brackets and quotes there",
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: an invalid date such as 2024-13-01.
        raise UserError(f"not valid YAML: {error}", file=file) from error
