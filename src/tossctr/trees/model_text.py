"""Strict validation of LightGBM's text format, because LightGBM does not validate it.

A model with wrong counts, sizes or child indices makes LightGBM write out of bounds, loop forever
or divide by zero. A valid model has exactly the lines that LightGBM writes for one binary `gbdt`
model, in their order; consistent lengths, ranges and sizes; and trees in which each node and leaf
is the child of exactly one earlier node.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

END = "end of trees\n"
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_INFO = re.compile(rf"none|\[{_NUMBER}:{_NUMBER}\]|-?\d+(?::-?\d+)*")
_DIGITS = re.compile(r"[0-9 +.e-]*")
_SPLITS = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_INNER = ("internal_value", "internal_weight", "internal_count")
_SETS = ("cat_boundaries", "cat_threshold")
_WHOLE = {
    "num_leaves", "num_cat", "split_feature", "decision_type", "left_child", "right_child",
    "leaf_count", "internal_count", *_SETS,
}  # fmt: skip
_MISSING_TYPES = 3  # none, zero, NaN: two bits of a decision type, above "category" and "go left"
_MOST_LEAVES = 131_072  # LightGBM's limit


class MalformedModel(ValueError):
    """The text is not a model that LightGBM could have written."""


def without_tail(text: str) -> str:
    """LightGBM's text without importances and parameters, which predicting does not need."""
    return text[: text.index("\n" + END) + 1 + len(END)]


def check_model(text: str, columns: int) -> int:
    """Check a model of `columns` columns, shortened by `without_tail`.

    Returns:
        The number of trees.

    Raises:
        MalformedModel: LightGBM could not have written it; names tree and key.
    """
    if not text.isascii():
        raise MalformedModel("contains non-ASCII characters")
    head, blank, _ = text.partition("\n\n")
    sizes = _check_header(head, columns)
    start = len(head) + len(blank)
    if start + sum(sizes) + len(END) != len(text) or not text.endswith(END):
        raise MalformedModel("tree_sizes differ from the sizes of the trees")
    largest = 0.0
    for number, size in enumerate(sizes):
        try:
            largest += _check_tree(text[start : start + size], number, columns)
        except MalformedModel as error:
            raise MalformedModel(f"tree {number}: {error}") from error
        start += size
    if not np.isfinite(largest):
        raise MalformedModel("the sum of leaf values overflows float64")
    return len(sizes)


def _check_header(head: str, columns: int) -> list[int]:
    """The sizes of the trees, in bytes."""
    lines = head.split("\n")
    names = " ".join(f"Column_{n}" for n in range(columns))
    fixed = [
        "tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0",
        f"max_feature_idx={columns - 1}", "objective=binary sigmoid:1", f"feature_names={names}",
    ]  # fmt: skip
    if len(lines) != len(fixed) + 2:
        raise MalformedModel(f"the header has {len(lines)} lines, not {len(fixed) + 2}")
    for found, expected in zip(lines, fixed, strict=False):
        if found != expected:
            raise MalformedModel(f"{expected[:60]!r} expected, not {found[:60]!r}")
    infos = _value(lines[-2], "feature_infos").split(" ")
    if len(infos) != columns or not all(map(_INFO.fullmatch, infos)):
        raise MalformedModel(f"feature_infos do not describe {columns} columns")
    sizes = _numbers(_value(lines[-1], "tree_sizes"), "tree_sizes", np.dtype(np.int64))
    if not len(sizes) or (sizes <= 0).any() or sizes.max() > np.iinfo(np.int32).max:
        raise MalformedModel("tree_sizes are not positive numbers")
    return [int(size) for size in sizes]


def _check_tree(block: str, number: int, columns: int) -> float:
    """The largest magnitude of the leaves' values."""
    name, *lines = block.split("\n")
    if name != f"Tree={number}" or lines[-3:] != ["", "", ""]:
        raise MalformedModel("does not begin and end at its place by tree_sizes")
    del lines[-3:]
    leaves, sets = (
        _one(lines[place] if place < len(lines) else "", key)
        for place, key in enumerate(("num_leaves", "num_cat"))
    )
    if not 1 <= leaves <= _MOST_LEAVES or not 0 <= sets < leaves:
        raise MalformedModel(f"num_leaves={leaves} with num_cat={sets}")
    lengths: dict[str, int | None] = {
        **dict.fromkeys(_SPLITS, leaves - 1),
        **dict.fromkeys(_LEAVES, leaves),
        **dict.fromkeys(_INNER, leaves - 1),
    }
    if leaves == 1:
        lengths["leaf_weight"] = 0  # LightGBM writes none for a single leaf
    if sets:
        lengths |= {"cat_boundaries": sets + 1, "cat_threshold": None}
    if len(lines) != len(lengths) + 4 or lines[-2] != "is_linear=0":
        raise MalformedModel("has missing or unknown lines")
    values = {
        key: _array(line, key, length)
        for line, (key, length) in zip(lines[2:-2], lengths.items(), strict=True)
    }
    _numbers(_value(lines[-1], "shrinkage"), "shrinkage", np.dtype(np.float64), 1)
    if leaves > 1:
        _check_splits(values, leaves, columns)
        _check_sets(values, sets)
    return float(np.abs(values["leaf_value"]).max())


def _check_splits(values: dict[str, Array], leaves: int, columns: int) -> None:
    feature, kind = values["split_feature"], values["decision_type"]
    if feature.min() < 0 or feature.max() >= columns:
        raise MalformedModel(f"split_feature is not one of {columns} columns")
    if kind.min() < 0 or kind.max() >= _MISSING_TYPES << 2:
        raise MalformedModel("decision_type is out of range")
    children = np.concatenate([values["left_child"], values["right_child"]])
    parents = np.tile(np.arange(leaves - 1), 2)
    each_once = np.concatenate([np.arange(-leaves, 0), np.arange(1, leaves - 1)])
    inner = children >= 0
    if not np.array_equal(np.sort(children), each_once) or (children <= parents)[inner].any():
        raise MalformedModel("left_child and right_child do not form a tree")


def _check_sets(values: dict[str, Array], sets: int) -> None:
    chosen = values["threshold"][(values["decision_type"] & 1) == 1]
    if not np.array_equal(np.sort(chosen), np.arange(sets)):
        raise MalformedModel(f"its categorical splits do not match num_cat={sets}")
    if not sets:
        return
    bounds, bits = values["cat_boundaries"], values["cat_threshold"]
    if bounds[0] != 0 or bounds[-1] != len(bits) or (np.diff(bounds) <= 0).any():
        raise MalformedModel("cat_boundaries do not divide cat_threshold")
    if bits.min() < 0 or bits.max() > np.iinfo(np.uint32).max:
        raise MalformedModel("cat_threshold is not an unsigned 32-bit number")


def _value(line: str, key: str) -> str:
    found, equals, value = line.partition("=")
    if found != key or not equals:
        raise MalformedModel(f"{key} expected, not {line[:60]!r}")
    return value


def _one(line: str, key: str) -> int:
    return int(_numbers(_value(line, key), key, np.dtype(np.int64), 1)[0])


def _array(line: str, key: str, length: int | None) -> Array:
    dtype = np.dtype(np.int64 if key in _WHOLE else np.float64)
    return _numbers(_value(line, key), key, dtype, length)


def _numbers(text: str, key: str, dtype: np.dtype[Any], length: int | None = None) -> Array:
    words = text.split(" ") if text else []
    if length is not None and len(words) != length:
        raise MalformedModel(f"{key} has {len(words)} numbers, not {length}")
    # A threshold of inf separates missing values from all numbers.
    finite = text.replace("inf", "0") if key == "threshold" else text
    if not _DIGITS.fullmatch(finite):  # Python also reads 1_0 and nan
        raise MalformedModel(f"{key} contains an invalid number")
    try:
        values = np.array(list(map(int if dtype.kind == "i" else float, words)), dtype)
    except (ValueError, OverflowError) as error:
        raise MalformedModel(f"{key} contains an invalid number") from error
    if not np.isfinite(values).all() and "inf" not in words:
        raise MalformedModel(f"{key} contains a number that is not finite")
    return values
