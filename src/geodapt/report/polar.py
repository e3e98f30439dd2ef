"""Section: chains around their root, before and after, in two dimensions."""

import math
from typing import Any

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict

from geodapt.report.figures import LINES, RULE, plain, style
from geodapt.report.rows import parse
from geodapt.report.section import Run, Section

LONGEST = 80  # characters of a label
MARKS = {
    "●": "circle",
    "■": "square",
    "◆": "diamond",
    "✚": "cross",
    "✖": "x",
    "▲": "triangle-up",
    "▼": "triangle-down",
    "◀": "triangle-left",
    "▶": "triangle-right",
    "⬟": "pentagon",
    "○": "circle-open",
    "□": "square-open",
    "◇": "diamond-open",
    "△": "triangle-up-open",
    "▽": "triangle-down-open",
    "◁": "triangle-left-open",
    "▷": "triangle-right-open",
}
"""A level's symbol in the legend and in the figure: levels are told apart without colour, too.

Their number and that of the colours have no common divisor: 102 levels pass before both repeat.
"""


class Picture(BaseModel):
    """Some chains of a model, laid out around the root."""

    model_config = ConfigDict(extra="ignore")

    texts: list[str]
    chains: list[list[int]]
    """Rows of ``texts``, from general to specific."""
    radii: list[float]
    angles: list[float]
    """Radians."""
    angle_error: float
    """The mean difference between a drawn angle and the true one, degrees."""


def section(run: Run) -> Section | None:
    """The pictures side by side, where the run left any."""
    pictures: dict[str, Picture] | None = parse(dict[str, Picture], run.results, "pictures")
    if not pictures:
        return None
    largest = max(radius for picture in pictures.values() for radius in picture.radii)
    levels = max(len(chain) for picture in pictures.values() for chain in picture.chains)
    return Section(
        "Around the root",
        "polar.html",
        {
            "pictures": [
                {"name": name, "json": _figure(picture, largest), "error": picture.angle_error}
                for name, picture in pictures.items()
            ],
            "chains": len(next(iter(pictures.values())).chains),
            "levels": [
                {
                    "name": f"level {level + 1}",
                    "colour": _colour(level),
                    "mark": [*MARKS][level % len(MARKS)],
                }
                for level in range(levels)
            ],
        },
    )


def _colour(level: int) -> str:
    return LINES[level % len(LINES)]


def _figure(picture: Picture, largest: float) -> dict[str, Any]:
    """Radius and angle as they are, on plain axes, so that the circles can be labelled."""
    x = [r * math.cos(a) for r, a in zip(picture.radii, picture.angles, strict=True)]
    y = [r * math.sin(a) for r, a in zip(picture.radii, picture.angles, strict=True)]
    level = {row: depth for chain in picture.chains for depth, row in enumerate(chain)}
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for chain in picture.chains:
        lines_x += [*(x[row] for row in chain), None]
        lines_y += [*(y[row] for row in chain), None]
    rows, symbols = sorted(level), list(MARKS.values())
    figure = go.Figure(
        [
            go.Scatter(
                x=lines_x,
                y=lines_y,
                mode="lines",
                line={"color": RULE, "width": 1},
                hoverinfo="skip",
            ),
            go.Scatter(
                x=[x[row] for row in rows],
                y=[y[row] for row in rows],
                mode="markers",
                marker={
                    "size": 7,
                    "color": [_colour(level[row]) for row in rows],
                    "symbol": [symbols[level[row] % len(symbols)] for row in rows],
                },
                text=[plain(_short(picture.texts[row])) for row in rows],
                customdata=[[level[row] + 1, picture.radii[row]] for row in rows],
                hovertemplate="%{text}<br>level %{customdata[0]}, %{customdata[1]:.3f} from the "
                "root<extra></extra>",
            ),
            go.Scatter(
                x=[0],
                y=[0],
                mode="markers",
                marker={"size": 9, "color": "var(--ink)", "symbol": "star"},
                hovertemplate="the root<extra></extra>",
            ),
        ]
    )
    step = _step(largest)
    radius = step
    while radius <= largest + 1e-9:
        figure.add_shape(
            type="circle",
            x0=-radius,
            y0=-radius,
            x1=radius,
            y1=radius,
            line={"color": RULE, "width": 1},
            layer="below",
        )
        figure.add_annotation(x=0, y=radius, text=f"{radius:g}", showarrow=False, yshift=7)
        radius = round(radius + step, 10)
    reach = 1.08 * largest
    figure.update_xaxes(visible=False, range=[-reach, reach])
    figure.update_yaxes(visible=False, range=[-reach, reach], scaleanchor="x")
    return style(figure, height=420, showlegend=False)


def _step(largest: float) -> float:
    """A round distance between circles, of which there are three to seven."""
    power = 10 ** math.floor(math.log10(largest)) if largest > 0 else 1.0
    return next(
        power * share for share in (0.2, 0.25, 0.5, 1.0, 2.0) if largest <= 5 * power * share
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
