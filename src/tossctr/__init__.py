"""TossCTR: click-through-rate models on ad logs with very long behaviour sequences."""

__version__ = "0.1.0"
