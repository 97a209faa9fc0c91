"""Which texts stand for a missing value."""

from __future__ import annotations

from typing import Any

# The list of pandas.read_csv, and \N, which Hive and MySQL write. The empty text is always missing.
NA_VALUES = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
    "N/A", "NA", "NULL", "NaN", "None", "\\N", "n/a", "nan", "null",
)  # fmt: skip


def as_na_values(values: Any) -> Any:
    """Of a config: numbers as text (`na_values: [-1]`), and no marker twice."""
    if not isinstance(values, list | tuple):
        return values
    texts = [
        repr(value).removesuffix(".0") if type(value) in (int, float) else value for value in values
    ]
    if any(value is None for value in texts):
        raise ValueError("YAML reads an unquoted null as nothing: quote it, as in ['null']")
    try:
        return tuple(dict.fromkeys(texts))
    except TypeError:
        return values
