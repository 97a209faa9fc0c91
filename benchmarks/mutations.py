"""Random changes to bytes, JSON and Arrow tables, for `fuzz.py` and `fuzz_folders.py`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

USED = ["gender", "hour", "inventory_id", "seq", "l_feat_1", "feat_a_1", "feat_e_3"]
TOKENS = ["", " ", "nan", "NaN", "inf", "-1", "1e999", "9" * 30, "1,,2", ",", "^", "1^2^3", "\x00",
          "é", "'", '"', "\n", "null", "0x10", "1_0", "[1, 2]", "=1+1", "1 2 3", "٣", "7" * 4000,
          ",".join(["3"] * 20_000)]  # fmt: skip


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


def mutated_table(table: pa.Table, draw: random.Random) -> pa.Table:
    """Remove, rename, duplicate or cast columns, or insert strange values."""
    for _ in range(draw.choice([1, 1, 2, 4])):
        name = draw.choice([n for n in [*USED, "clicked", "ID"] if n in table.column_names] or
                           table.column_names)  # fmt: skip
        at = table.column_names.index(name)
        column = table.column(at)
        try:
            match draw.randrange(9):
                case 0:
                    table = table.remove_column(at)
                case 1:
                    names = list(table.column_names)
                    names[at] = draw.choice(
                        [name.upper(), name + " ", "x", names[0], "\ufeff" + name]
                    )
                    table = table.rename_columns(names)
                case 2:
                    table = table.append_column(name, column)
                case 3:
                    table = table.set_column(at, name, retyped(column, draw))
                case 4:
                    table = table.slice(0, draw.choice([0, 1, 2, len(table)]))
                case 5:
                    table = table.set_column(at, name, pa.nulls(len(table), column.type))
                case 6:
                    table = pa.concat_tables([table, table.slice(0, draw.randrange(3))])
                case _:
                    table = table.set_column(at, name, revalued(column, draw))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            continue
    return table


def retyped(column: pa.ChunkedArray, draw: random.Random) -> pa.ChunkedArray:
    kinds: list[Callable[[], Any]] = [
        lambda: column.cast(pa.large_string()),
        lambda: column.cast(pa.string()).dictionary_encode(),
        lambda: column.cast(pa.binary()),
        lambda: column.cast(pa.float64()),
        lambda: column.cast(pa.int64(), safe=False),
        lambda: column.cast(pa.bool_()),
        lambda: pc.split_pattern(column.cast(pa.string()), ","),
        lambda: pc.split_pattern(column.cast(pa.string()), ",").cast(pa.list_(pa.int64())),
        lambda: pa.chunked_array([pa.array([{"a": 1}] * len(column))]),
        lambda: pa.chunked_array([pa.array([[[1]]] * len(column))]),
        lambda: pa.chunked_array([pa.array([1] * len(column), pa.timestamp("ms"))]),
        lambda: pa.chunked_array([pa.nulls(len(column))]),
        lambda: pa.chunked_array([pa.array([b"\xff\xfe"] * len(column), pa.binary())]),
    ]
    return draw.choice(kinds)()


def revalued(column: pa.ChunkedArray, draw: random.Random) -> pa.ChunkedArray:
    values = column.to_pylist()
    text = pa.types.is_string(column.type)
    numbers = [None, float("nan"), float("inf"), -float("inf"), 1e38, -1e300, 0, 2, -1]
    for _ in range(draw.choice([1, 1, 5, len(values) or 1])):
        if values:
            value = draw.choice([None, *TOKENS]) if text else draw.choice(numbers)
            values[draw.randrange(len(values))] = value
    kind = column.type if text or pa.types.is_float32(column.type) else pa.float64()
    return pa.chunked_array([pa.array(values, kind)])
