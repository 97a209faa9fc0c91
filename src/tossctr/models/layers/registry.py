"""Config values that name an entry of a registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AfterValidator
from pydantic_core import PydanticKnownError


def one_of(registry: Mapping[str, Any], *more: str) -> AfterValidator:
    """A validator for a key of `registry`, or one of `more`; entries may be added later."""

    def check(name: str) -> str:
        names = [f"'{known}'" for known in (*registry, *more)]
        if name not in registry and name not in more:
            expected = f"{', '.join(names[:-1])} or {names[-1]}"
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name

    return AfterValidator(check)
