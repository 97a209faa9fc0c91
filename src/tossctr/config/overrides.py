"""`--set key=value`: change single values of a config from the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tossctr.config.messages import ErrorContext, suggestion
from tossctr.config.yaml_file import parse_value
from tossctr.errors import UserError


@dataclass(frozen=True)
class Override:
    """`valid_split.fraction=0.2` as path ("valid_split", "fraction") and value 0.2."""

    path: tuple[str, ...]
    value: Any
    written: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Parse `key=value`.

        Raises:
            UserError: not `key=value`, or the value is not YAML.
        """
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise UserError(
                "is not key=value", file="--set", value=text, remedy="write key=value, no spaces"
            )
        return cls(path, parse_value(value, f"--set {text}"), text)

    def refuse_unknown(self, known: Collection[str], legacy: Collection[str]) -> None:
        """Check that the key is in `known` or `legacy`.

        Raises:
            UserError: it is in neither; a key of `known` is suggested.
        """
        key = self.path[0]
        if key not in known and key not in legacy:
            raise UserError(
                f"{key} is not a known key",
                file="--set",
                value=self.written,
                remedy=suggestion(key, known, "see model_config.yaml and dataset_config.yaml"),
            )


def apply_overrides(
    values: Mapping[str, Any], overrides: Sequence[Override], context: ErrorContext
) -> dict[str, Any]:
    """A copy of `values` with the overrides applied in order.

    Raises:
        UserError: a dotted path leads into a value that is not a mapping.
    """
    result = dict(values)
    for override in overrides:
        result = _assign(result, override.path, override.value, context)
    return result


def _assign(
    values: Mapping[str, Any], path: Sequence[str], value: Any, context: ErrorContext
) -> dict[str, Any]:
    # Copies each level, as YAML aliases share mappings between entries.
    key, *rest = path
    if rest:
        inner = values.get(key)
        if inner is not None and not isinstance(inner, Mapping):
            raise context.error(
                key, f"has no key {rest[0]}", value=inner, remedy=f"set {key} itself"
            )
        value = _assign(inner or {}, rest, value, context.inside(key))
    return {**values, key: value}
