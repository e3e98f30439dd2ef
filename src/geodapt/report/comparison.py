"""Section: the methods side by side, as a table and as bars."""

from typing import Any

import plotly.graph_objects as go

from geodapt.pages.columns import MEMORY, PERPLEXITY, SECONDS, TRAINABLE, Column, standard_error
from geodapt.pages.formatting import listed, percent
from geodapt.pages.plotly_style import ACCENT, INK, QUIET, style, wrapped
from geodapt.pages.results import MethodRow, columns_of, read_rows
from geodapt.pages.section import RunRecord, Section, SystemPage


def table_columns(rows: list[MethodRow], page: SystemPage) -> tuple[list[Column], list[Column]]:
    """The metrics and costs that some of the rows have, in display order."""
    costs = [TRAINABLE, *page.costs, SECONDS, MEMORY]
    return columns_of(rows, page.metrics), columns_of(rows, costs)


def comparison_section(run: RunRecord, page: SystemPage) -> Section | None:
    """The comparison, where the run has rows with at least one known figure."""
    rows = read_rows(run.results)
    metrics, costs = table_columns(rows, page)
    if not (metrics or costs):
        return None
    system = run.results.get("recipe", "")
    context: dict[str, Any] = {
        "metrics": metrics,
        "costs": costs,
        "rows": [_cells(row, rows, [*metrics, *costs], row.method == system) for row in rows],
    }
    judged = [*metrics, *(cost for cost in costs if cost == PERPLEXITY)]
    if judged:
        tested = (run.results.get("data") or {}).get("test")
        first = judged[0]
        context |= {
            "sentence": run.results.get("comparison") or comparison_sentence(rows, first, system),
            "resolution": _resolution(first, tested),
            "metric": first.label,
            "figure": _bars(rows, first, system, tested),
            "whiskers": bool(tested) and first.proportion,
        }
    return Section("Comparison", "geodapt.report/comparison.html", context)


def _cells(
    row: MethodRow, rows: list[MethodRow], columns: list[Column], system: bool
) -> dict[str, Any]:
    cells = []
    for column in columns:
        value = row.figure(column)
        cells.append(
            {
                "text": "–" if value is None else column.show(value),
                "best": column.is_best(value, [other.figure(column) for other in rows]),
            }
        )
    return {"name": row.name, "system": system, "cells": cells}


def comparison_sentence(rows: list[MethodRow], metric: Column, system: str) -> str:
    """Which method is best by a metric, and how the run's own system compares, in words."""
    scored = [(value, row) for row in rows if (value := row.figure(metric)) is not None]
    scored.sort(key=lambda pair: pair[0] if metric.cost else -pair[0])
    if len(rows) == 1:
        return f"{metric.label} of {rows[0].name}: {metric.text(scored[0][0])}."
    highest, above, less = (
        ("Lowest", "below", "more") if metric.cost else ("Highest", "above", "less")
    )
    best = scored[0][0]
    leaders = [row.name for value, row in scored if metric.show(value) == metric.show(best)]
    if len(leaders) == len(scored) > 2:
        return f"All have the same {metric.noun}, {metric.text(best)}."
    said = f"{highest} {metric.noun}: {listed(leaders)}, {metric.text(best)}"
    own = next(((value, row) for value, row in scored if row.method == system), None)
    rival = next(((value, row) for value, row in scored if row.method != system), None)
    if own is None or rival is None:
        return said + "."
    (value, row), (other_value, other) = own, rival
    if leaders == [row.name]:
        said += f"; {metric.difference(value, other_value)} {above} the next, {other.name}"
    elif row.name not in leaders:
        said += (
            f"; {row.name} has {metric.text(value)}, {metric.difference(value, other_value)} {less}"
        )
    mine, theirs = row.figure(TRAINABLE), other.figure(TRAINABLE)
    if mine and theirs and mine != theirs:
        said += (
            f". {row.name} has {TRAINABLE.show(mine)} trainable parameters, "
            f"{percent(mine / theirs)} of the {TRAINABLE.show(theirs)} of {other.name}"
        )
    return said + "."


def _resolution(metric: Column, tested: int | None) -> str:
    """The resolution of the metric: how much one test case changes it."""
    if not tested or not metric.proportion:
        return ""
    points = f"{100 / tested:.1f}" if tested < 100 else f"{100 / tested:.2g}"
    return f"Of the {tested:,} test cases, one more or less is {points} points."


def _bars(rows: list[MethodRow], metric: Column, system: str, tested: int | None) -> dict[str, Any]:
    scored = [(value, row) for row in rows if (value := row.figure(metric)) is not None]
    scale = 100 if metric.unit == "%" else 1
    values = [value for value, _ in scored]
    errors = None
    if tested and metric.proportion:
        errors = [scale * standard_error(value, tested) for value in values]
    figure = go.Figure(
        go.Bar(
            # Positions rather than names: two methods may share a name.
            y=list(range(len(scored))),
            x=[scale * value for value in values],
            orientation="h",
            width=0.62,
            marker_color=[ACCENT if row.method == system else QUIET for _, row in scored],
            error_x={"array": errors, "color": INK, "thickness": 1, "width": 3},
            text=[metric.show(value) for value in values],
            textposition="none",  # the figures stand in a column at the right
            customdata=[wrapped(row.name, 60) for _, row in scored],
            hovertemplate="%{customdata}<br>%{text} " + metric.unit + "<extra></extra>",
        )
    )
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(scored))),
        ticktext=[wrapped(row.name) for _, row in scored],
        tickfont={"color": INK},
        showgrid=False,
        ticks="",
    )
    figure.update_xaxes(title=metric.axis, rangemode="tozero")
    for position, value in enumerate(values):
        figure.add_annotation(
            text=metric.show(value),
            xref="paper",
            x=1,
            xanchor="left",
            y=position,
            showarrow=False,
            font={"color": INK},
        )
    return style(
        figure,
        height=70 + 34 * len(scored),
        margin={"l": 8, "r": 44, "t": 8, "b": 8},
        showlegend=False,
    )
