"""Sequences as text: ids joined by a splitter, or a list as JSON, Python or NumPy print it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tossctr.data.encoding.ids import id_array
from tossctr.data.where import Where

Array = NDArray[Any]

_CLOSING = {"[": "]", "{": "}", "(": ")"}
_OPENING = {closing: opening for opening, closing in _CLOSING.items()}
_QUOTED = re.compile(r"(?:^|[\s,])[bru]?['\"]")
_ITEM = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s,"'\[\](){}:]+))(\s*,\s*|\s+|$)""",
    re.DOTALL,
)
_NUMBERS = re.compile(r"[\s0-9.eE+\-naN]*")  # a list that NumPy prints, separated by blanks
_SHORTENED = re.compile(r"(?:^|[\s,])\.\.\.(?:[\s,]|$)")

# Splitters and the texts they join; blank and comma join numbers only, as names contain them too.
SPLITTERS = {
    "^": r"[^^]+(\^[^^]+)+",
    "|": r"[^|]+(\|[^|]+)+",
    ",": r"-?\d+(,\s*-?\d+)+",
    ";": r"-?\d+(;\s*-?\d+)+",
    " ": r"-?\d+( +-?\d+)+",
    "\t": r"-?\d+(\t-?\d+)+",
}


def is_list(array: pa.Array) -> bool:
    """Whether the column holds lists."""
    return bool(pa.types.is_list(array.type) or pa.types.is_large_list(array.type))


def flat_list(lists: pa.Array) -> tuple[Array, pa.Array]:
    """Offsets (N + 1,) int64 and the elements of lists; a missing list is empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, lists.flatten()


def as_text(array: pa.Array, column: str, where: Where) -> pa.Array:
    """Joined sequences as string or large_string; a number is a sequence of length 1.

    Raises:
        UserError: the column holds neither text nor numbers, or an ambiguous float.
    """
    dtype = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return array if array.type == dtype else array.cast(dtype)
    if pa.types.is_integer(dtype) or pa.types.is_binary(dtype) or pa.types.is_null(dtype):
        return array.cast(dtype).cast(pa.string())
    if pa.types.is_floating(dtype):
        return id_array(array, (), column, where)
    raise where.error(
        f"holds {dtype}, not joined text or lists",
        column,
        None,
        None,
        "write lists of ids, or text with a splitter between ids",
    )


def split_text(
    array: pa.Array, splitter: str, na: Collection[str], column: str, where: Where
) -> tuple[Array, pa.Array]:
    """Split sequences into offsets (N + 1,) int64 and flat, trimmed tokens.

    Raises:
        UserError: a list cannot be parsed, or another splitter is used.
    """
    return split_plain(*plain_text(array, splitter, na, column, where), splitter, column, where)


def plain_text(
    array: pa.Array, splitter: str, na: Collection[str], column: str, where: Where
) -> tuple[pa.Array, dict[int, list[str]]]:
    """Trim rows, replace empty ones by null, and turn lists printed as text into joined text. Lists
    of quoted ids are returned separately, by row.

    Raises:
        UserError: a list cannot be parsed, is abbreviated, or is nested.
    """
    if splitter.strip() or splitter == " ":
        array = pc.utf8_trim_whitespace(array)
    missing = pc.is_in(array, value_set=pa.array(["", *na], array.type))
    array = pc.if_else(missing, pa.scalar(None, array.type), array)
    ends = pc.or_(
        pc.is_in(pc.utf8_slice_codeunits(array, 0, 1), value_set=pa.array([*_CLOSING], array.type)),
        pc.is_in(pc.utf8_slice_codeunits(array, -1), value_set=pa.array([*_OPENING], array.type)),
    )
    rows = np.flatnonzero(ends.to_numpy(zero_copy_only=False))
    if not len(rows):
        return array, {}
    texts: list[str | None] = []
    apart: dict[int, list[str]] = {}
    for row, text in zip(rows.tolist(), array.take(pa.array(rows)).to_pylist(), strict=True):
        try:
            found = _unpacked(text, splitter)
        except ValueError as error:
            remedy = f"write ids joined by {splitter!r}, or a list such as [8, 9] or ['a', 'b']"
            raise where.error(str(error), column, row, text, remedy) from error
        if isinstance(found, list):
            apart[row] = found
        texts.append(found if isinstance(found, str) and found else None)
    return pc.replace_with_mask(array, ends, pa.array(texts, array.type)), apart


def _unpacked(text: str, splitter: str) -> str | list[str]:
    """Parse a row that starts or ends with a bracket: joined text or elements of a list, or the row
    itself if it is not a list.

    Raises:
        ValueError: the problem with the list.
    """
    first, last = text[0], text[-1]
    if _CLOSING.get(first) != last:
        for opening in "[{":
            if opening not in (first, _OPENING.get(last)):
                continue
            if text.count(opening) != text.count(_CLOSING[opening]):
                raise ValueError("an incomplete list")
        return text
    inner = text[1:-1].strip()
    if ("'" in inner or '"' in inner) and _QUOTED.search(inner):
        return _plain_items(inner) or _items(inner)
    opens, closes = inner.find(first), inner.find(last)
    if first == "(" and (max(opens, closes) >= 0 or (inner and "," not in inner)):
        return text  # '(not set)' is an id
    if closes >= 0 and not 0 <= opens < closes:
        return text  # '[a],[b]' is two ids
    if opens >= 0:
        raise ValueError("a list within a list")
    if first == "{" and ":" in inner:
        raise ValueError("a mapping, not a list")
    if "..." in inner and _SHORTENED.search(inner):
        raise ValueError("a list that was abbreviated when it was printed")
    inner = inner.removesuffix(",")
    if "," in inner and not splitter.strip():
        return [token.strip() for token in inner.split(",")]
    if splitter.strip() and splitter in inner:
        return inner.replace(", ", ",") if splitter == "," else inner
    if "," in inner:
        return inner.replace(", ", ",").replace(",", splitter)
    return splitter.join(inner.split()) if _NUMBERS.fullmatch(inner) else inner


def _plain_items(inner: str) -> list[str] | None:
    """Fast path: elements that all have the same quotes and contain neither quotes nor escapes."""
    if "\\" in inner or ("'" in inner and '"' in inner):
        return None
    try:
        items = json.loads(f"[{inner}]".replace("'", '"'))
    except (ValueError, RecursionError):
        return None
    return items if all(type(item) is str for item in items) else None


def _items(inner: str) -> list[str]:
    items, at = [], 0
    while at < len(inner):
        found = _ITEM.match(inner, at)
        if found is None:
            raise ValueError("not a list that can be read")
        double, single, bare, _ = found.groups()
        if bare is not None:
            items.append(bare)
        else:
            items.append(_unescaped(double, '"') if single is None else _unescaped(single, "'"))
        at = found.end()
    return items


def _unescaped(content: str, quote: str) -> str:
    """Parse quoted text as JSON, or else as Python."""
    if "\\" not in content:
        return content
    quoted = f"{quote}{content}{quote}"
    try:
        text = str(json.loads(quoted))
    except ValueError:  # Python's escapes or single quotes
        try:
            text = str(ast.literal_eval(quoted))
        except (ValueError, SyntaxError) as error:
            raise ValueError("not a list that can be read") from error
    try:
        text.encode()
    except UnicodeEncodeError as error:  # an unpaired surrogate
        raise ValueError("not a list that can be read") from error
    return text


def split_plain(
    array: pa.Array, apart: dict[int, list[str]], splitter: str, column: str, where: Where
) -> tuple[Array, pa.Array]:
    """Split the output of `plain_text` into offsets (N + 1,) int64 and flat, trimmed tokens.

    Raises:
        UserError: another splitter is used.
    """
    blanks = splitter == " "  # consecutive blanks are one splitter
    lists = pc.utf8_split_whitespace(array) if blanks else pc.split_pattern(array, splitter)
    if apart:
        place = np.arange(len(array))
        place[[*apart]] = len(array) + np.arange(len(apart))
        both = pa.concat_arrays([lists, pa.array([*apart.values()], lists.type)])
        lists = both.take(pa.array(place))
    offsets, flat = flat_list(lists)
    if np.diff(offsets).max(initial=0) == 1:
        _refuse_other_splitter(array, splitter, column, where)
    return offsets, pc.utf8_trim_whitespace(flat)


def _refuse_other_splitter(array: pa.Array, splitter: str, column: str, where: Where) -> None:
    """Raise if no row contains the splitter and most rows are joined by another one."""
    rows = len(array) - array.null_count
    for other, pattern in SPLITTERS.items():
        if other == splitter:
            continue
        joined = pc.match_substring_regex(array, f"^{pattern}$")
        if 2 * (pc.sum(joined).as_py() or 0) > rows:
            at = pc.index(joined, True).as_py()
            raise where.error(
                f"no splitter {splitter!r} in these sequences, but {other!r}",
                column,
                at,
                array[at].as_py(),
                f"set splitter: {other!r} in the data set's config",
            )
