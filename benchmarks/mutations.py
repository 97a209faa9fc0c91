"""Random changes to bytes and to JSON, for `fuzz.py` and `fuzz_folders.py`."""

from __future__ import annotations

import random
from typing import Any


def flip(content: bytes, draw: random.Random) -> bytes:
    """Change, remove, duplicate or insert bytes, or truncate."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 3, 20])):
        at = draw.randrange(max(len(data), 1))
        match draw.randrange(6):
            case 0 | 1:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 2:
                del data[at : at + draw.choice([1, 4, 1000])]
            case 3:
                data[at:at] = data[at : at + draw.choice([1, 4, 1000])]
            case 4:
                data[at:at] = draw.randbytes(draw.choice([1, 8]))
            case 5 if draw.random() < 0.3:
                del data[at:]
    return bytes(data)


def spoil(content: Any, draw: random.Random) -> None:
    """Change one value somewhere in JSON."""
    values: list[Any] = [
        None,
        -1,
        0,
        10**12,
        2**70,
        1e308,
        "",
        "../../x",
        "\x00",
        [],
        {},
        True,
        "a",
    ]
    while isinstance(content, dict | list) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = draw.choice(list(keys))
        inner = content[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.85:
            content = inner
            continue
        if isinstance(content, dict) and draw.random() < 0.2:
            del content[key]
        else:
            content[key] = draw.choice(values)
        return
