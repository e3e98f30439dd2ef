"""Section: how much target data each method needs."""

import math
from collections import defaultdict
from typing import Any

import plotly.graph_objects as go

from geodapt.pages.columns import ACCURACY, RANKING, Column, as_percent, standard_error
from geodapt.pages.formatting import listed, percent
from geodapt.pages.plotly_style import LINES, plotly_text, style
from geodapt.pages.results import Measured, columns_of, parse_part, read_rows
from geodapt.pages.section import RunRecord, Section

METRICS = (*RANKING, ACCURACY, Column("macro_f1", "Macro F1", as_percent, "%"))


class CurvePoint(Measured):
    """A method trained on a part of the target's training set."""

    fraction: float


def efficiency_section(run: RunRecord) -> Section | None:
    """The data-efficiency curve, where the run measured one."""
    points: list[CurvePoint] = parse_part(list[CurvePoint], run.results, "curve") or []
    metrics = columns_of(points, METRICS)
    if not metrics:
        return None
    system = run.results.get("recipe", "")
    names = {row.method: row.name for row in read_rows(run.results)}
    curves = curves_of(points, metrics[0], system)
    if not curves:
        return None
    names = {method: names.get(method, method) for method in curves}
    tested = (run.results.get("data") or {}).get("test")
    return Section(
        "Data efficiency",
        "geodapt.xcross/efficiency.html",
        {
            "metric": metrics[0].label,
            "sentence": reading(curves, names, metrics[0], system, tested),
            "figure": _lines(curves, names, metrics[0], tested),
            "whiskers": bool(tested) and metrics[0].proportion,
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


def _shown(column: Column, point: CurvePoint) -> str:
    value = point.figure(column)
    return "–" if value is None else column.show(value)


def curves_of(
    points: list[CurvePoint], metric: Column, system: str
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
    tested: int | None = None,
) -> str:
    """The curve in words: the values on the least data, and how certain they are with these test
    cases."""
    shared = set.intersection(*({fraction for fraction, _ in curve} for curve in curves.values()))
    if not shared:
        return ""
    least = min(shared)
    at = {method: dict(curve)[least] for method, curve in curves.items()}
    values = [f"{names[method]} reaches {metric.text(value)}" for method, value in at.items()]
    said = f"With {percent(least)} of the target's training data, {listed(values)}."
    if tested and metric.proportion and system in at:
        for method, value in at.items():
            if method != system:
                said += " " + _told(names[system], names[method], at[system] - value, metric)
                said += f" ({_interval(at[system], value, tested)})."
    return said


def _told(own: str, other: str, difference: float, metric: Column) -> str:
    where = "ahead of" if difference > 0 else "behind" if difference < 0 else "level with"
    points = f" by {metric.difference(difference, 0)}" if difference else ""
    return f"{own} is {where} {other}{points}"


def _interval(value: float, other: float, tested: int) -> str:
    """The 95 % interval of a difference of shares, as if measured on different cases.

    The cases are the same, so the true interval is mostly narrower.
    """
    error = 1.96 * math.hypot(standard_error(value, tested), standard_error(other, tested))
    low, high = 100 * (value - other - error), 100 * (value - other + error)
    told = "" if low > 0 or high < 0 else f", which {tested:,} test cases cannot tell from none"
    return f"95 % interval {low:+.1f} to {high:+.1f} points{told}"


def _lines(
    curves: dict[str, list[tuple[float, float]]],
    names: dict[str, str],
    metric: Column,
    tested: int | None,
) -> dict[str, Any]:
    def errors(values: list[float]) -> dict[str, Any] | None:
        if not tested or not metric.proportion:
            return None
        array = [scale * standard_error(value, tested) for value in values]
        return {"array": array, "thickness": 1, "width": 4}

    scale = 100 if metric.unit == "%" else 1
    dashes = ("solid", "dash", "dot", "dashdot")  # told apart without colour, too
    figure = go.Figure(
        [
            go.Scatter(
                x=[100 * fraction for fraction, _ in curve],
                y=[scale * value for _, value in curve],
                name=plotly_text(names[method]),
                error_y=errors([value for _, value in curve]),
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
    figure.update_yaxes(title=metric.axis, rangemode="nonnegative")
    return style(
        figure,
        height=360,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
