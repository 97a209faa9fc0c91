"""TossCTR: click-through-rate models on ad logs with very long behaviour sequences.

The names below are the Python interface; they are imported when they are first used, so that
`import tossctr` itself is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tossctr.waiting import let_threads_sleep

if TYPE_CHECKING:
    from tossctr.api import load_run, predict, prepare, train, write_report
    from tossctr.data.synthetic import synthesize
    from tossctr.errors import UserError
    from tossctr.families.experiment import load_experiment

let_threads_sleep()

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "load_experiment",
    "load_run",
    "predict",
    "prepare",
    "synthesize",
    "train",
    "write_report",
]

_HOMES = {
    "UserError": "tossctr.errors",
    "load_experiment": "tossctr.families.experiment",
    "synthesize": "tossctr.data.synthetic",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "tossctr.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
