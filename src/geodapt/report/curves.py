"""Section: how training went, a chart per quantity with all of a run's stages in it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from geodapt.pages.columns import Column
from geodapt.pages.plotly_style import LINES, plotly_text, style, whole_ticks
from geodapt.pages.section import RunRecord, Section, SystemPage

Lines = Sequence[Mapping[str, Any]]
"""Log lines of one stage, in order of their steps."""

VALIDATION = "validation_"
ALIKE = ("curvature",)
"""Endings of keys that share a chart: one quantity of several parts of a model."""
MANY = 12
"""Curves have markers up to so many points."""
MARKS = {
    "": "circle",
    "■": "square",
    "▲": "triangle-up",
    "✚": "cross",
    "★": "star",
    "⬟": "pentagon",
}
"""Marks that distinguish stages of the same colour: a mark in the legend -> a marker on the
curve."""


@dataclass(frozen=True)
class Look:
    """How the curves of one stage are drawn."""

    colour: str
    mark: str
    """Of the legend; empty for the first stages, whose colours alone tell them apart."""


def looks_of(stages: Sequence[str]) -> dict[str, Look]:
    """A look for each stage: colours first, then marks; 36 pass before both repeat."""
    marks = list(MARKS)
    return {
        name: Look(LINES[number % len(LINES)], marks[number // len(LINES) % len(marks)])
        for number, name in enumerate(stages)
    }


def curves_section(run: RunRecord, page: SystemPage) -> Section | None:
    """The training curves, where the run logged any."""
    return charts(stages_of(run.metrics), {column.key: column for column in page.metrics})


def stages_of(metrics: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """The log lines of each stage, sorted by step."""
    stages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in metrics:
        if isinstance(line, dict) and "stage" in line and "step" in line:
            stages[str(line["stage"])].append(line)
    return {name: sorted(lines, key=lambda line: line["step"]) for name, lines in stages.items()}


def charts(stages: Mapping[str, Lines], columns: Mapping[str, Column]) -> Section | None:
    """A chart for each quantity that some stage logged; None where there is none."""
    quantities = quantities_of(stages)
    if not quantities:
        return None
    drawn = [name for name in stages if any(name in curves for curves in quantities.values())]
    looks = looks_of(drawn)
    return Section(
        "Training",
        "geodapt.report/curves.html",
        {
            "stages": [
                {"name": name, "colour": look.colour, "mark": look.mark}
                for name, look in looks.items()
            ],
            "validated": any(
                key.startswith(VALIDATION)
                for curves in quantities.values()
                for keys in curves.values()
                for key in keys
            ),
            "charts": [
                {
                    "title": label(quantity, columns),
                    "figure": _figure(quantity, curves, stages, looks, columns),
                }
                for quantity, curves in quantities.items()
            ],
        },
    )


def quantities_of(stages: Mapping[str, Lines]) -> dict[str, dict[str, list[str]]]:
    """Which keys of which stages belong on the chart of each quantity.

    A quantity's validation is on its training's chart; the loss comes first.
    """
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, lines in stages.items():
        for key in dict.fromkeys(key for line in lines for key in line):
            if key in ("step", "stage", "epoch") or not series(lines, key)[0]:
                continue
            quantity = key.removeprefix(VALIDATION)
            quantity = next((end for end in ALIKE if quantity.endswith(end)), quantity)
            found[quantity].setdefault(name, []).append(key)
    return dict(sorted(found.items(), key=lambda item: item[0] != "loss"))


def label(key: str, columns: Mapping[str, Column]) -> str:
    """``hit_at_1`` as people read it, with the unit of its column: ``Hit@1 (%)``."""
    return columns[key].axis if key in columns else key.replace("_", " ")


def series(lines: Lines, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one key, wherever a line has a finite one."""
    found = [
        (line["step"], line[key])
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return [step for step, _ in found], [value for _, value in found]


def _figure(
    quantity: str,
    curves: Mapping[str, Sequence[str]],
    stages: Mapping[str, Lines],
    looks: Mapping[str, Look],
    columns: Mapping[str, Column],
) -> dict[str, Any]:
    traces, judged = [], quantity in ("loss", "perplexity", *ALIKE)
    scale = 100 if quantity in columns and columns[quantity].unit == "%" else 1
    for name, keys in curves.items():
        for key in keys:
            steps, values = series(stages[name], key)
            look = looks[name]
            validation = key.startswith(VALIDATION)
            judged |= validation
            said = name if key == quantity else f"{name}, {label(key, columns)}"
            traces.append(
                go.Scatter(
                    x=steps,
                    y=[scale * value for value in values],
                    name=plotly_text(said.replace("validation ", "validation: ")),
                    mode="lines" if len(steps) > MANY and not look.mark else "lines+markers",
                    line={
                        "color": look.colour,
                        "width": 1.8 if len(keys) <= 2 else 1,
                        "dash": "dash" if validation else "solid",
                    },
                    marker={
                        "size": 7 if look.mark else 5,
                        "symbol": _symbol(look, validation),
                        "maxdisplayed": MANY,
                    },
                    hovertemplate="step %{x}: %{y:.4~g}",
                )
            )
    figure = go.Figure(traces)
    # A loss or a metric is read by its small differences, a learning rate from zero.
    figure.update_yaxes(nticks=5, tickformat="~g", rangemode="normal" if judged else "tozero")
    figure.update_xaxes(title="step", **whole_ticks(step for trace in traces for step in trace.x))
    return style(figure, height=230, showlegend=False)


def _symbol(look: Look, validation: bool) -> str:
    if look.mark:
        return MARKS[look.mark] + ("-open" if validation else "")
    return "diamond" if validation else "circle"
