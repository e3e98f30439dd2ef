"""What a run of LatHAdapter adds to its page: differences, the disk, each attribute's strip."""

from math import hypot
from typing import Any

import plotly.graph_objects as go

from geodapt.pages.columns import Column, as_percent
from geodapt.pages.plotly_style import LINES, RULE, plotly_text, style
from geodapt.pages.section import RunRecord, Section, SystemPage, table_section
from geodapt.prompts.report import HALVES

MARKERS = {
    "class": ("Classes", "square", LINES[0], 9),
    "attribute": ("Attributes", "star", LINES[1], 13),
    "picture": ("Pictures", "circle", LINES[2], 6),
}
"""Kind of a point -> its name in the legend, its symbol, colour and size."""


def differences_section(run: RunRecord) -> Section | None:
    """Each variant against the CLIP as it is, with the interval."""
    if not (found := run.part("lathadapter").get("differences")):
        return None
    rows = [
        (
            one["variant"],
            f"{100 * one['difference']:+.2f}",
            f"{100 * one['low']:+.2f} to {100 * one['high']:+.2f}",
        )
        for one in found
    ]
    figure = found[0]["figure"].replace("_", " ")
    said = (
        f"Points of {figure} above the CLIP without an adapter, on the same shots and the same "
        f"{found[0]['pictures']:,} answers over {found[0]['pairs']} seeds. The interval holds 95 % "
        "of the bootstrap resamples of seeds and pictures; one that holds 0 shows no difference."
    )
    heads = ["Variant", ("Difference", "points"), ("Interval", "points")]
    return table_section("Against the CLIP as it is", heads, rows, said, "Differences")


def disk_section(run: RunRecord) -> Section | None:
    """Classes, attributes and pictures at their places."""
    if not (page := run.part("lathadapter").get("page")):
        return None
    places = page["disk"]
    # The picture goes a little beyond the farthest point, at most to the edge.
    reach = min(1.0, 1.15 * max(map(hypot, places["x"], places["y"]), default=1.0))
    context = {
        "json": _disk(places, reach),
        "distortion": as_percent(places["distortion"]),
        "shown": round(100 * reach),
    }
    return Section("Classes, attributes, pictures", "geodapt.lathadapter/disk.html", context)


def strips_section(run: RunRecord) -> Section | None:
    """Each attribute's nearest words and pictures, and the agreement with the known tree."""
    if not (page := run.part("lathadapter").get("page")):
        return None
    strips = [{**one, "share": as_percent(one["share"])} for one in page["strips"]]
    tree = [
        (
            one["level"],
            one["groups"],
            f"{one['adjusted_mutual_information']:.2f}",
            f"{one['shuffled']:.2f}",
            f"{one['shuffled_above']:.3f}",
        )
        for one in page["tree"]
    ]
    context = {"strips": strips, "tree": tree}
    return Section("What attributes learned", "geodapt.lathadapter/strips.html", context)


def _disk(places: dict[str, Any], reach: float) -> dict[str, Any]:
    figure = go.Figure()
    figure.add_shape(type="circle", x0=-1, x1=1, y0=-1, y1=1, line={"color": RULE, "width": 1})
    for kind, (name, symbol, colour, size) in MARKERS.items():
        rows = [row for row, one in enumerate(places["kind"]) if one == kind]
        figure.add_scatter(
            x=[places["x"][row] for row in rows],
            y=[places["y"][row] for row in rows],
            text=[plotly_text(places["text"][row]) for row in rows],
            name=name,
            mode="markers",
            hoverinfo="text",
            marker={"symbol": symbol, "color": colour, "size": size},
        )
    ends = [-1.02 * reach, 1.02 * reach]
    figure.update_xaxes(visible=False, range=ends)
    figure.update_yaxes(visible=False, range=ends, scaleanchor="x")
    return style(figure, 460, legend={"orientation": "h", "y": -0.02})


PAGE = SystemPage(
    metrics=(
        *HALVES,
        Column("all", "All classes", as_percent, "%", short="All"),
        Column("average", "Average of domains", as_percent, "%", short="Average"),
    ),
    sections=(differences_section, disk_section, strips_section),
)
