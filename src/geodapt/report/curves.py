"""Section: how training went, one small figure a stage."""

import math
from collections import defaultdict
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from geodapt.report.columns import METRICS
from geodapt.report.figures import LINES, plain, style
from geodapt.report.section import Run, Section

VALIDATION = "validation_"
TOGETHER = ("loss", "perplexity", "curvature")
"""Ends of keys whose values are of one kind."""
LABELS = {column.key: column.label for column in METRICS}


def section(run: Run) -> Section | None:
    """The training curves, where the run logged any."""
    stages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in run.metrics:
        if isinstance(line, dict) and "stage" in line and "step" in line:
            stages[str(line["stage"])].append(line)
    drawn = [
        {"stage": stage, "json": figure}
        for stage, lines in stages.items()
        if (figure := _figure(sorted(lines, key=lambda line: line["step"])))
    ]
    return Section("Training", "curves.html", {"stages": drawn}) if drawn else None


def label(key: str) -> str:
    """``validation_hit_at_1`` as people read it: ``validation Hit@1``."""
    if key.startswith(VALIDATION):
        return f"validation {label(key.removeprefix(VALIDATION))}"
    return LABELS.get(key, key.replace("_", " "))


def series(lines: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one key, wherever a line has a finite one."""
    found = [
        (line["step"], line[key])
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return [step for step, _ in found], [value for _, value in found]


def panels(lines: list[dict[str, Any]]) -> list[list[str]]:
    """Keys that belong on one axis: those that end alike in :data:`TOGETHER`, what else validation
    measured, each other key alone."""
    keys = list(dict.fromkeys(key for line in lines for key in line if series(lines, key)[0]))
    alike = [[key for key in keys if key.endswith(end)] for end in TOGETHER]
    shown = {key for panel in alike for key in panel}
    measured = [key for key in keys if key.startswith(VALIDATION) and key not in shown]
    others = [[key] for key in keys if key not in (*shown, *measured, "step", "epoch")]
    losses, *alike = alike
    return [panel for panel in (losses, measured, *alike, *others) if panel]


def title_of(keys: list[str]) -> str:
    """What a panel's axis says: its one key, or what its keys have in common."""
    if len(keys) == 1:
        return label(keys[0])
    return next((end for end in TOGETHER if keys[0].endswith(end)), "validation")


def _figure(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    drawn = panels(lines)
    if not drawn:
        return None
    figure = make_subplots(rows=len(drawn), shared_xaxes=True, vertical_spacing=0.2 / len(drawn))
    for row, keys in enumerate(drawn, start=1):
        for number, key in enumerate(keys):
            steps, values = series(lines, key)
            figure.add_trace(
                go.Scatter(
                    x=steps,
                    y=values,
                    name=plain(label(key.removeprefix(VALIDATION))),
                    showlegend=len(keys) > 1,  # alone, the axis names it
                    mode="lines" if len(steps) > 12 else "lines+markers",
                    line={"color": LINES[(number + row - 1) % len(LINES)], "width": 1.8},
                    marker={"size": 5},
                    hovertemplate="step %{x}: %{y:.4~g}",
                ),
                row=row,
                col=1,
            )
        # A loss or a metric is read by its small differences, a learning rate from zero.
        judged = keys[0].endswith(TOGETHER) or keys[0].startswith(VALIDATION)
        figure.update_yaxes(
            title=plain(title_of(keys)), rangemode="normal" if judged else "tozero", row=row, col=1
        )
    figure.update_yaxes(nticks=4, tickformat="~g")
    figure.update_xaxes(title="step", row=len(drawn), col=1)
    return style(
        figure,
        height=80 + 85 * len(drawn),
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
