"""Section: how much target data each method needs."""

from collections import defaultdict
from typing import Any

import plotly.graph_objects as go

from geodapt.report.columns import Column
from geodapt.report.figures import LINES, plain, style
from geodapt.report.rows import Figures, columns_of, parse, read_rows
from geodapt.report.section import Run, Section
from geodapt.report.words import listed, percent


class Point(Figures):
    """A method trained on a part of the target's training set."""

    fraction: float


def section(run: Run) -> Section | None:
    """The data-efficiency curve, where the run measured one."""
    points: list[Point] = parse(list[Point], run.results, "curve") or []
    metrics, _ = columns_of(points)
    if not metrics:
        return None
    system = run.results.get("recipe", "")
    names = {row.method: row.name for row in read_rows(run.results)}
    curves = curves_of(points, metrics[0], system)
    if not curves:
        return None
    names = {method: names.get(method, method) for method in curves}
    return Section(
        "Data efficiency",
        "efficiency.html",
        {
            "metric": metrics[0].label,
            "sentence": reading(curves, names, metrics[0], system),
            "figure": _lines(curves, names, metrics[0]),
            "metrics": metrics,
            "methods": [
                {
                    "name": names[method],
                    "rows": [
                        {
                            "fraction": percent(point.fraction),
                            "cells": [_shown(column, point) for column in metrics],
                        }
                        for point in sorted(points, key=lambda point: point.fraction)
                        if point.method == method
                    ],
                }
                for method in curves
            ],
        },
    )


def _shown(column: Column, point: Point) -> str:
    value = point.figure(column)
    return "–" if value is None else column.show(value)


def curves_of(
    points: list[Point], metric: Column, system: str
) -> dict[str, list[tuple[float, float]]]:
    """(fraction, value) of every method, fractions ascending, the run's own system first."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.fraction):
        if (value := point.figure(metric)) is not None:
            curves[point.method].append((point.fraction, value))
    return dict(sorted(curves.items(), key=lambda curve: curve[0] != system))


def reading(
    curves: dict[str, list[tuple[float, float]]],
    names: dict[str, str],
    metric: Column,
    system: str,
) -> str:
    """What the curve says: the values on the least data, and when the system catches up."""
    shared = set.intersection(*({fraction for fraction, _ in curve} for curve in curves.values()))
    said = ""
    if shared:
        least = min(shared)
        values = [
            f"{names[method]} reaches {metric.text(dict(curve)[least])}"
            for method, curve in curves.items()
        ]
        said = f"With {percent(least)} of the target's training data, {listed(values)}."
    if system in curves:
        for method, curve in curves.items():
            if method == system:
                continue
            full, goal = curve[-1]
            first = next((fraction for fraction, value in curves[system] if value >= goal), None)
            reached = "does not reach" if first is None else f"reaches with {_part(first)}"
            said += (
                f" {names[system]} {reached} what {names[method]} reaches with "
                f"{_part(full)}, {metric.text(goal)}."
            )
    return said.strip()


def _part(fraction: float) -> str:
    return "all of it" if fraction == 1 else f"{percent(fraction)} of it"


def _lines(
    curves: dict[str, list[tuple[float, float]]], names: dict[str, str], metric: Column
) -> dict[str, Any]:
    scale = 100 if metric.unit == "%" else 1
    dashes = ("solid", "dash", "dot", "dashdot")  # told apart without colour, too
    figure = go.Figure(
        [
            go.Scatter(
                x=[100 * fraction for fraction, _ in curve],
                y=[scale * value for _, value in curve],
                name=plain(names[method]),
                mode="lines+markers",
                line={
                    "color": LINES[number % len(LINES)],
                    "width": 2.5,
                    "dash": dashes[number % len(dashes)],
                },
                marker={"size": 8, "symbol": number},
                hovertemplate="%{x:.3g} % of the data: %{y:.3~f} " + metric.unit,
            )
            for number, (method, curve) in enumerate(curves.items())
        ]
    )
    fractions = sorted({100 * fraction for curve in curves.values() for fraction, _ in curve})
    figure.update_xaxes(title="Target training data (%)", tickvals=fractions)
    title = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    figure.update_yaxes(title=title)
    return style(
        figure,
        height=360,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
