"""The comparison as a table in the terminal."""

import math
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from geodapt.console import Console, plain_table
from geodapt.pages.columns import Column
from geodapt.pages.results import MethodRow, read_rows
from geodapt.pages.section import SystemPage
from geodapt.report.comparison import table_columns
from geodapt.systems import page_of

COLUMNS = 10
"""The most columns of figures that fit beside each other."""


def print_table(results: dict[str, Any], page: SystemPage | None = None) -> None:
    """Print the methods of a ``results.json`` side by side on standard output.

    The tables of the run's own system, such as retrieved chains, come first. The best value of each
    column is bold (of the costs the smallest above zero). Ten columns fit into 80 characters, where
    only the methods' names wrap; more than ten stand in several tables. ``page`` gives the columns;
    by default those of the run's own recipe.
    """
    page = page or page_of(results.get("recipe"))
    for table in page.tables(results) if page.tables else ():
        Console().print(table)
    rows = read_rows(results)
    if not rows:
        return
    metrics, costs = table_columns(rows, page)
    columns = [*metrics, *costs]
    tables = max(1, math.ceil(len(columns) / COLUMNS))
    ends = [number * len(columns) // tables for number in range(tables + 1)]
    if title := results.get("title"):
        Console().print(Text(str(title), "italic"))
    for start, end in pairwise(ends):
        if start:
            Console().print()
        Console().print(_table(rows, columns[start:end]))


def _table(rows: list[MethodRow], columns: list[Column]) -> Table:
    heads = ["\n".join(filter(None, (each.short or each.label, each.unit))) for each in columns]
    table = plain_table("Method", *heads, numbers=heads, whole=heads, gap=1)
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
