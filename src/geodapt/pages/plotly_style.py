"""The look that all figures share.

Colours are the names of the page's own CSS variables, ``var(--accent)``; the page's script puts
in their values when it draws, and draws again when the reader's colour scheme changes.
"""

import html
import json
import textwrap
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

INK, SOFT, RULE, SURFACE = "var(--ink)", "var(--soft)", "var(--rule)", "var(--surface)"
ACCENT, QUIET = "var(--accent)", "var(--quiet)"
LINES = [f"var(--line-{number})" for number in range(1, 7)]
HEAT = [[0.0, "var(--heat-0)"], [0.5, "var(--heat-1)"], [1.0, "var(--heat-2)"]]


def style(figure: go.Figure, height: int, **layout: Any) -> dict[str, Any]:
    """The figure as JSON for the page: transparent, quiet axes, no panning that traps a finger."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "var(--sans)", "size": 12, "color": SOFT},
        hoverlabel={
            "bgcolor": SURFACE,
            "bordercolor": RULE,
            "font": {"family": "var(--sans)", "size": 12, "color": INK},
        },
        dragmode=False,
        colorway=LINES,
    )
    axis: dict[str, Any] = {
        "automargin": True,
        "fixedrange": True,
        "gridcolor": RULE,
        "linecolor": RULE,
        "tickcolor": RULE,
        "zeroline": False,
        "title_font_size": 12,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**layout)
    return json.loads(figure.to_json())


def whole_ticks(numbers: Iterable[float]) -> dict[str, Any]:
    """Ticks for an axis of whole numbers: where they are few, plotly would put halves between."""
    ends = [*numbers] or [0]
    return {"dtick": 1} if max(ends) - min(ends) < 10 else {}


def plotly_text(text: str) -> str:
    """Text for a figure: plotly reads a few HTML tags in its labels, and this is no HTML."""
    return html.escape(text, quote=False)


def wrapped(text: str, width: int = 22) -> str:
    """Text for an axis label, in lines that leave a phone room for the figure."""
    return "<br>".join(plotly_text(line) for line in textwrap.wrap(text, width)) or plotly_text(
        text
    )
