"""The comparison as a table in the terminal."""

import math
from itertools import pairwise
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from geodapt.console import Console
from geodapt.report.chains import Retrieved, read_chains
from geodapt.report.columns import Column
from geodapt.report.rows import Row, columns_of, read_rows

COLUMNS = 10
"""The most columns of figures that fit beside each other."""


def print_table(results: dict[str, Any]) -> None:
    """Print the methods of a ``results.json`` side by side on standard output, or its chains.

    The best value of each column is bold (of the costs the smallest above zero). Ten columns fit
    into 80 characters, where only the methods' names wrap; more than ten stand in several tables.
    """
    for retrieved in read_chains(results):
        _print_chain(retrieved)
    rows = read_rows(results)
    if not rows:
        return
    metrics, costs = columns_of(rows)
    columns = [*metrics, *costs]
    tables = max(1, math.ceil(len(columns) / COLUMNS))
    ends = [number * len(columns) // tables for number in range(tables + 1)]
    if title := results.get("title"):
        Console().print(Text(str(title), "italic"))
    for start, end in pairwise(ends):
        if start:
            Console().print()
        Console().print(_table(rows, columns[start:end]))


def _table(rows: list[Row], columns: list[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Method", overflow="fold")
    for column in columns:
        head = "\n".join(filter(None, (column.short or column.label, column.unit)))
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        cells = [Text(row.name)]
        for column in columns:
            value = row.figure(column)
            best = column.is_best(value, [other.figure(column) for other in rows])
            cells.append(
                Text("–" if value is None else column.show(value), style="bold" if best else "")
            )
        table.add_row(*cells)
    return table


def _print_chain(retrieved: Retrieved) -> None:
    """One query and its concepts, each with its distance from the root."""
    table = Table(
        title=Text(retrieved.query),
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2),
    )
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for step in retrieved.steps:
        table.add_row(f"{step.radius:.3f}", Text(step.text))
    Console().print(table)
