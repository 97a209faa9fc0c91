"""Text from files, as a terminal or a page may show it."""

from __future__ import annotations

import re

# Controls (tabs and line ends aside), what turns the direction of writing, line separators, and
# bytes that are no text in a file's name.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text, with what would change how the rest is shown as an escape of its code."""
    return _HIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
