"""What a radial run adds to its page: chains around their root, and retrieved concepts.

The chains are drawn in two dimensions, before and after training; retrieved concepts stand from
general to specific.
"""

import math
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from rich.table import Table
from rich.text import Text

from geodapt.pages.columns import Column, as_percent, as_score
from geodapt.pages.plotly_style import LINES, RULE, plotly_text, style
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section, SystemPage
from geodapt.radial.results import PolarPicture, RetrievedChain

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


def polar_section(run: RunRecord) -> Section | None:
    """The pictures side by side, where the run left any."""
    pictures: dict[str, PolarPicture] | None = parse_part(
        dict[str, PolarPicture], run.results, "pictures"
    )
    if not pictures:
        return None
    largest = max(radius for picture in pictures.values() for radius in picture.radii)
    levels = max(len(chain) for picture in pictures.values() for chain in picture.chains)
    return Section(
        "Around the root",
        "geodapt.radial/polar.html",
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


def _figure(picture: PolarPicture, largest: float) -> dict[str, Any]:
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
                text=[plotly_text(_short(picture.texts[row])) for row in rows],
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


def retrieved_chains(results: dict) -> list[RetrievedChain]:
    """The retrieved chains of a ``results.json``; none where it retrieved none."""
    return parse_part(list[RetrievedChain], results, "chains") or []


def chains_section(run: RunRecord) -> Section | None:
    """The retrieved chains, where the run has any."""
    chains = retrieved_chains(run.results)
    if not chains:
        return None
    return Section("From general to specific", "geodapt.radial/chains.html", {"chains": chains})


def chain_tables(results: dict[str, Any]) -> Iterator[Table]:
    """For the terminal: a table for each query."""
    return map(_chain_table, retrieved_chains(results))


def _chain_table(retrieved: RetrievedChain) -> Table:
    """One query and its concepts, each with its distance from the root."""
    table = Table(
        title=Text(retrieved.query),
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2),
        expand=True,  # a title wraps where its table ends
    )
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for step in retrieved.steps:
        table.add_row(f"{step.radius:.3f}", Text(step.text))
    return table


PAGE = SystemPage(
    metrics=(
        Column("tau_d", "Order of radii (τ_d)", as_score, short="τ_d"),
        Column("precision", "Chain precision", as_percent, "%", short="Chain\nprec."),
        Column("recall", "Chain recall", as_percent, "%", short="Chain\nrecall"),
        Column("class_recall_at_1", "Class R@1", as_percent, "%", short="Class\nR@1"),
        Column("class_recall_at_5", "Class R@5", as_percent, "%", short="Class\nR@5"),
        Column("lexical_entailment", "Lexical entailment (ρ)", as_score, short="Lexical\nρ"),
        Column("recall_at_1", "R@1", as_percent, "%"),
        Column("recall_at_5", "R@5", as_percent, "%"),
        Column("text_recall_at_1", "Text R@1", as_percent, "%", short="Text\nR@1"),
        Column("text_recall_at_5", "Text R@5", as_percent, "%", short="Text\nR@5"),
        Column("zero_shot_known", "Zero-shot, known", as_percent, "%", short="0-shot\nknown"),
        Column("zero_shot_new", "Zero-shot, new", as_percent, "%", short="0-shot\nnew"),
    ),
    sections=(chains_section, polar_section),
    tables=chain_tables,
)
