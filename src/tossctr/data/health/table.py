"""Show the statistics of a file as a table."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from tossctr.data.encoding.report import MANY_UNSEEN
from tossctr.data.health.check import Health
from tossctr.data.health.column import ColumnHealth
from tossctr.data.health.drift import LARGE_DRIFT


def health_table(health: Health) -> Table:
    """One row per column: type, missing, range or most frequent values, drift, problems."""
    table = Table(title=Text(f"{health.file}: {health.rows:,} rows"))
    compared = bool(health.drift or health.only_here or health.only_there)
    of_both = ("drift", "unseen") if compared else ()
    for head in ("column", "type", "missing", "values", *of_both, "problems"):
        table.add_column(head, overflow="fold")
    for name, column in health.columns.items():
        drift = [_drift(health, name), _unseen(health, name)] if compared else []
        cells = [name, column.type, _missing(column), _values(column)]
        table.add_row(*map(Text, cells), *drift, Text("; ".join(column.problems)))
    for name in health.only_there:
        table.add_row(Text(name), "", "", "", "only in the other", "", "")
    return table


def _missing(column: ColumnHealth) -> str:
    if not column.missing:
        return ""
    return f"{column.missing:,} ({100 * column.missing / column.rows:.2f} %)"


def _values(column: ColumnHealth) -> str:
    if column.kind == "other":
        return ""
    more = "more than " if column.distinct_more else ""
    distinct = f"{more}{column.distinct:,} distinct"
    match column.kind:
        case "texts":
            common = column.counts.most_common(3)
            return f"{distinct}: " + ", ".join(f"{text[:20]} ({n:,})" for text, n in common)
        case "sequences":
            joined = "" if column.splitter is None else f", joined by {column.splitter!r}"
            return f"lengths: {_quantiles(column)}; {distinct} tokens{joined}"
    share = column.share_of_ones
    if share is not None:
        return f"0 and 1: {100 * share:.4g} % are 1"
    return f"{_quantiles(column)}; {distinct}"


def _quantiles(column: ColumnHealth) -> str:
    shown = _time if column.kind == "times" else _number
    found = ", ".join(f"{name} {shown(value)}" for name, value in column.quantiles().items())
    return f"{found} (UTC)" if "tz=" in column.type else found


def _number(value: float) -> str:
    """Six digits, but all integer digits of large numbers, which may be ids."""
    return f"{value:.0f}" if 1e6 <= abs(value) < 2**53 else f"{value:.6g}"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # out of datetime's range
        return f"{seconds:.6g} s"


def _unseen(health: Health, name: str) -> Text:
    share = health.unseen.get(name)
    if share is None:
        return Text()
    return Text(f"{100 * share:.2f} %", style="bold red" if share > MANY_UNSEEN else "")


def _drift(health: Health, name: str) -> Text:
    if name in health.only_here:
        return Text("only here")
    index = health.drift[name]
    if index is None:
        return Text()
    return Text(f"{index:.2f}", style="bold red" if index > LARGE_DRIFT else "")
