"""Names of the engines, importable without them."""

from __future__ import annotations

from typing import Literal

Engine = Literal["local", "torchrun", "ray"]
