"""How results are printed: tables for reading, JSON and its kin for programs, JMESPath queries as in ``az``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

Columns = Sequence[tuple[str, str | Callable[[Any], Any]]]
"""Headings with the field (or a function of the item) that stands below."""

STATUS_STYLES = {
    "Completed": "green",
    "Failed": "red",
    "Canceled": "yellow",
    "CancelRequested": "yellow",
    "NotResponding": "red",
    "Running": "cyan",
    "Finalizing": "cyan",
}


def show(data: Any, form: str | None, query: str | None, columns: Columns | None) -> None:
    """Print ``data``. Without a format: a table (lists) or YAML on a terminal, JSON otherwise."""
    terminal = sys.stdout.isatty()
    if query:
        data = _query(data, query)
        columns = None
    if form is None:
        form = "json"
        if terminal and not query:
            form = "table" if isinstance(data, list) else "yaml"
    if form == "none" or data is None:
        return
    if form == "table":
        _print_table(data, columns)
    elif form == "yaml":
        click.echo(as_yaml(data), nl=False)
    elif form == "tsv":
        click.echo(as_tsv(data), nl=False)
    elif form == "jsonc" and terminal:
        from rich.console import Console

        Console().print_json(as_json(data))
    else:
        click.echo(as_json(data))


def as_json(data: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def as_yaml(data: Any) -> str:
    """Block YAML in the order of the data."""
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def as_tsv(data: Any) -> str:
    """A line for each item, its values separated by tabs; nested lists count, nested objects are left empty."""
    items = data if isinstance(data, list) else [data]
    lines = []
    for item in items:
        if isinstance(item, dict):
            values = list(item.values())
        elif isinstance(item, list):
            values = item
        else:
            values = [item]
        lines.append("\t".join(_tsv_value(value) for value in values) + "\n")
    return "".join(lines)


def _tsv_value(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return str(len(value))
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(str(value).split("\n")).replace("\t", " ")


def _query(data: Any, query: str) -> Any:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.search(query, data)
    except JMESPathError as error:
        raise click.UsageError(f"--query is not valid JMESPath: {' '.join(str(error).split())}") from error


def _print_table(data: Any, columns: Columns | None) -> None:
    items = data if isinstance(data, list) else [data]
    items = [item if isinstance(item, dict) else {"Result": item} for item in items]
    columns = columns or _columns_of(items)
    rows = [[_cell(item, field) for _, field in columns] for item in items]
    headings = [heading for heading, _ in columns]
    if sys.stdout.isatty():
        _print_rich(headings, rows)
    else:
        click.echo(_plain_table(headings, rows), nl=False)


def _columns_of(items: list[Any]) -> Columns:
    """All fields that have plain values, in the order they are met."""
    names = {
        name: None
        for item in items
        for name, value in item.items()
        if not isinstance(value, dict | list) and name != "resourceGroup"
    }
    return [(name.replace("_", " ").title(), name) for name in names]


def _cell(item: Any, field: str | Callable[[Any], Any]) -> str:
    value = item.get(field) if isinstance(field, str) else field(item)
    return "" if value is None else str(value)


def _plain_table(headings: list[str], rows: list[list[str]]) -> str:
    widths = [
        max(len(heading), *(len(row[index]) for row in rows)) if rows else len(heading)
        for index, heading in enumerate(headings)
    ]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _print_rich(headings: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, overflow="fold" if index == 0 else "ellipsis", no_wrap=index != 0)
    for row in rows:
        # Text, not markup: names may have brackets.
        table.add_row(*(Text(cell, style=STATUS_STYLES.get(cell, "")) for cell in row))
    Console().print(table)
