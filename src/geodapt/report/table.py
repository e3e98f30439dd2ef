"""The comparison as a table in the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geodapt.report.chains import Retrieved, read_chains
from geodapt.report.rows import columns_of, read_rows


def print_table(results: dict[str, Any]) -> None:
    """Print the methods of a ``results.json`` side by side on standard output, or its chains.

    The best value of each column is bold (of the costs the smallest above zero). Ten columns fit
    into 80 characters; only the methods' names wrap.
    """
    for retrieved in read_chains(results):
        _print_chain(retrieved)
    rows = read_rows(results)
    if not rows:
        return
    metrics, costs = columns_of(rows)
    table = Table(
        title=Text(str(results.get("title") or "")),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("Method", overflow="fold")
    for column in (*metrics, *costs):
        head = "\n".join(filter(None, (column.short or column.label, column.unit)))
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        cells = [Text(row.name)]
        for column in (*metrics, *costs):
            value = row.figure(column)
            best = column.is_best(value, [other.figure(column) for other in rows])
            cells.append(
                Text("–" if value is None else column.show(value), style="bold" if best else "")
            )
        table.add_row(*cells)
    Console().print(table)


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
