"""Make text from files safe to show in a terminal or on a page."""

from __future__ import annotations

import re

# Control characters except tab and newline, bidirectional controls, line separators, and
# surrogates, which stand for undecodable bytes of file names.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with control characters replaced by escape sequences."""
    return _HIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
