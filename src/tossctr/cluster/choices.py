"""What can be chosen by name; importable without the engines."""

from __future__ import annotations

from typing import Literal

Engine = Literal["local", "torchrun", "ray"]
