"""`--set key=value`: single values of a config changed from the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tossctr.config.messages import Place, suggestion
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
        """Raises:
        UserError: not `key=value`, or a value that is not YAML.
        """
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise UserError(
                "is not key=value", file="--set", value=text, remedy="write key=value, no spaces"
            )
        return cls(path, parse_value(value, f"--set {text}"), text)

    def refuse_unknown(self, known: Collection[str], legacy: Collection[str]) -> None:
        """Raises:
        UserError: the key is in neither; only `known` ones are suggested.
        """
        key = self.path[0]
        if key not in known and key not in legacy:
            raise UserError(
                f"{key} is not a known key",
                file="--set",
                value=self.written,
                remedy=suggestion(key, known, "see the keys in model_config and dataset_config"),
            )


def apply_overrides(
    values: Mapping[str, Any], overrides: Sequence[Override], place: Place
) -> dict[str, Any]:
    """`values` with the overrides, in their order; `values` itself stays as it is.

    Raises:
        UserError: a dotted path into something that is not a mapping.
    """
    result = dict(values)
    for override in overrides:
        result = _assign(result, override.path, override.value, place)
    return result


def _assign(
    values: Mapping[str, Any], path: Sequence[str], value: Any, place: Place
) -> dict[str, Any]:
    # Copies on the way down: YAML aliases share their mappings between entries.
    key, *rest = path
    if rest:
        inner = values.get(key)
        if inner is not None and not isinstance(inner, Mapping):
            raise place.error(
                key, f"has no part {rest[0]}", value=inner, remedy=f"set {key} as a whole"
            )
        value = _assign(inner or {}, rest, value, place.inside(key))
    return {**values, key: value}
