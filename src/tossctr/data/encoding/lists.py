"""Histories as text: ids joined by a splitter, or a list as JSON, Python or NumPy print it."""

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
_NUMBERS = re.compile(r"[\s0-9.eE+\-naN]*")  # what NumPy prints between blanks alone
_SHORTENED = re.compile(r"(?:^|[\s,])\.\.\.(?:[\s,]|$)")

# What joins ids in files; texts hold blanks and commas too, so there only numbers count.
SPLITTERS = {
    "^": r"[^^]+(\^[^^]+)+",
    "|": r"[^|]+(\|[^|]+)+",
    ",": r"-?\d+(,\s*-?\d+)+",
    ";": r"-?\d+(;\s*-?\d+)+",
    " ": r"-?\d+( +-?\d+)+",
    "\t": r"-?\d+(\t-?\d+)+",
}


def is_list(array: pa.Array) -> bool:
    """Whether each row is a list already."""
    return bool(pa.types.is_list(array.type) or pa.types.is_large_list(array.type))


def flat_list(lists: pa.Array) -> tuple[Array, pa.Array]:
    """Lists -> offsets (N + 1,) int64 and their elements; a missing list is empty."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, lists.flatten()


def as_text(array: pa.Array, column: str, where: Where) -> pa.Array:
    """A column of joined sequences as string or large_string; a number is a sequence of one.

    Raises:
        UserError: a column of neither text nor numbers, or a float that is no one id.
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
        "write lists of ids, or texts of ids with a splitter between them",
    )


def split_text(
    array: pa.Array, splitter: str, na: Collection[str], column: str, where: Where
) -> tuple[Array, pa.Array]:
    """Histories as text -> offsets (N + 1,) int64 and the flat, trimmed tokens as strings.

    Raises:
        UserError: a list that cannot be read; no splitter at all, but another one.
    """
    return split_plain(*plain_text(array, splitter, na, column, where), splitter, column, where)


def plain_text(
    array: pa.Array, splitter: str, na: Collection[str], column: str, where: Where
) -> tuple[pa.Array, dict[int, list[str]]]:
    """The same rows, trimmed, with null for an empty or missing history, and lists that were
    written as text as joined text; those whose ids are quoted are given apart, by row.

    Raises:
        UserError: a list that cannot be read, or that is shortened or nested.
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
    """A row that begins or ends with a bracket: a list without its brackets, as joined text or as
    its elements; what only looks like one as it is.

    Raises:
        ValueError: what is wrong with the list.
    """
    first, last = text[0], text[-1]
    if _CLOSING.get(first) != last:
        for opening in "[{":
            if opening not in (first, _OPENING.get(last)):
                continue
            if text.count(opening) != text.count(_CLOSING[opening]):
                raise ValueError("half a list")
        return text
    inner = text[1:-1].strip()
    if ("'" in inner or '"' in inner) and _QUOTED.search(inner):
        return _plain_items(inner) or _items(inner)
    opens, closes = inner.find(first), inner.find(last)
    if first == "(" and (max(opens, closes) >= 0 or (inner and "," not in inner)):
        return text  # '(not set)' is an id
    if closes >= 0 and not 0 <= opens < closes:
        return text  # '[a],[b]' are two ids
    if opens >= 0:
        raise ValueError("a list within a list")
    if first == "{" and ":" in inner:
        raise ValueError("a mapping, not a list")
    if "..." in inner and _SHORTENED.search(inner):
        raise ValueError("a list that was shortened when it was written")
    inner = inner.removesuffix(",")
    if "," in inner and not splitter.strip():
        return [token.strip() for token in inner.split(",")]
    if splitter.strip() and splitter in inner:
        return inner.replace(", ", ",") if splitter == "," else inner
    if "," in inner:
        return inner.replace(", ", ",").replace(",", splitter)
    return splitter.join(inner.split()) if _NUMBERS.fullmatch(inner) else inner


def _plain_items(inner: str) -> list[str] | None:
    """The elements where all are quoted alike and hold neither quotes nor escapes: in one call."""
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
    """What a quoted text stands for, as JSON or else as Python reads it."""
    if "\\" not in content:
        return content
    quoted = f"{quote}{content}{quote}"
    try:
        text = str(json.loads(quoted))
    except ValueError:  # JSON knows fewer escapes, and double quotes only
        try:
            text = str(ast.literal_eval(quoted))
        except (ValueError, SyntaxError) as error:
            raise ValueError("not a list that can be read") from error
    try:
        text.encode()
    except UnicodeEncodeError as error:  # escapes can stand for halves of a character
        raise ValueError("not a list that can be read") from error
    return text


def split_plain(
    array: pa.Array, apart: dict[int, list[str]], splitter: str, column: str, where: Where
) -> tuple[Array, pa.Array]:
    """What `plain_text` gives -> offsets (N + 1,) int64 and the flat, trimmed tokens as strings.

    Raises:
        UserError: no splitter at all, but another one.
    """
    blanks = splitter == " "  # any number of them is one
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
    """Raise where most rows, none of which holds the splitter, are joined by another."""
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
