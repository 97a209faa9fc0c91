"""Field names in models' configs, as FuxiCTR's files write them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def flat(value: Any) -> Any:
    """One name, a list of names, or a list of lists of names, as a tuple of names."""
    # FuxiCTR's files write one name, a list of names, or a list of tuples of names.
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(n for v in value for n in (v if isinstance(v, list | tuple) else (v,)))
    return (value,)


def _grouped(value: Any) -> Any:
    return tuple(flat(v) for v in value) if isinstance(value, list | tuple) else (flat(value),)


Names = Annotated[tuple[str, ...], BeforeValidator(flat)]
"""Field names: a list, a lone name, or null for none."""

Groups = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_grouped)]
"""Groups of field names, as in `[[item, shop], brand]`: a name in a list is a group of one."""
