"""A file's health as a table."""

from __future__ import annotations

from rich.table import Table

from tossctr.data.health import LARGE_DRIFT, ColumnHealth, Health


def health_table(health: Health) -> Table:
    """One row a column: type, missing, range or commonest values, drift, problems."""
    table = Table(title=f"{health.file}: {health.rows:,} rows")
    compared = bool(health.drift or health.only_here or health.only_there)
    for head in ("column", "type", "missing", "values", *["drift"] * compared, "problems"):
        table.add_column(head, overflow="fold")
    for name, column in health.columns.items():
        missing = f"{column.missing / max(column.rows, 1):.2%}" if column.missing else ""
        drift = [_drift(health, name)] if compared else []
        table.add_row(name, column.type, missing, _values(column), *drift, _problems(column))
    for name in health.only_there:
        table.add_row(name, "", "", "", "only in the other", "")
    return table


def _values(column: ColumnHealth) -> str:
    quantiles = "  ".join(f"{q:.6g}" for q in column.quantiles())
    if column.kind == "numbers":
        return quantiles
    more = "more than " if column.distinct_more else ""
    distinct = f"{more}{column.distinct:,} distinct"
    if column.kind == "sequences":
        return f"lengths {quantiles}; {distinct} tokens"
    common = ", ".join(text[:20] for text, _ in column.counts.most_common(3))
    return f"{distinct}: {common}"


def _drift(health: Health, name: str) -> str:
    if name in health.only_here:
        return "only here"
    index = health.drift[name]
    if index is None:
        return ""
    return f"[bold red]{index:.2f}[/]" if index > LARGE_DRIFT else f"{index:.2f}"


def _problems(column: ColumnHealth) -> str:
    return "; ".join(column.problems)
