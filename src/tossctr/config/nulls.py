"""Texts that mean a missing value."""

from __future__ import annotations

from typing import Any

# The defaults of pandas.read_csv, and \N of Hive and MySQL. Empty text is always missing.
NA_VALUES = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A", "NA", "NULL", "NaN", "None", "\\N", "n/a", "nan", "null",
)  # fmt: skip


def as_na_values(values: Any) -> Any:
    """Normalize the config's list: numbers as text (`na_values: [-1]`), without duplicates."""
    if not isinstance(values, list | tuple):
        return values
    texts = [
        repr(value).removesuffix(".0") if type(value) in (int, float) else value for value in values
    ]
    if any(value is None for value in texts):
        raise ValueError("an unquoted null is YAML's empty value: write ['null']")
    try:
        return tuple(dict.fromkeys(texts))
    except TypeError:
        return values
