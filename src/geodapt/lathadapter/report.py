"""What a run of LatHAdapter adds to its page: differences, the disk, each attribute's strip."""

from math import hypot
from typing import Any

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict

from geodapt.pages.columns import Column, as_percent
from geodapt.pages.plotly_style import LINES, RULE, plotly_text, style
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section, SystemPage

MARKERS = {
    "class": ("Classes", "square", LINES[0], 9),
    "attribute": ("Attributes", "star", LINES[1], 13),
    "picture": ("Pictures", "circle", LINES[2], 6),
}
"""Kind of a point -> its name in the legend, its symbol, colour and size."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class VariantDifference(_Part):
    """A variant's figure less that of the CLIP as it is."""

    variant: str
    figure: str
    difference: float
    low: float
    high: float
    pairs: int
    pictures: int


class DiskPlaces(_Part):
    """Points in the Poincare disk of radius 1."""

    x: list[float]
    y: list[float]
    kind: list[str]
    text: list[str]
    distortion: float


class AttributeStrip(_Part):
    """What lies nearest to an attribute."""

    number: int
    words: list[str]
    pictures: list[str]
    share: float


class LevelAgreement(_Part):
    """How attributes agree with one level of a known tree."""

    level: int
    adjusted_mutual_information: float
    shuffled: float
    shuffled_above: float
    groups: int


class AttributeDetails(_Part):
    """The part ``page`` of the adapter that a run keeps."""

    disk: DiskPlaces
    strips: list[AttributeStrip]
    tree: list[LevelAgreement] = []
    radius_order: float | None = None


class AblationDetails(_Part):
    """The part ``lathadapter`` of a ``results.json``."""

    differences: list[VariantDifference]
    page: AttributeDetails


def differences_section(run: RunRecord) -> Section | None:
    """Each variant against the CLIP as it is, with the interval."""
    if (found := _details(run)) is None:
        return None
    rows = [
        {
            "name": one.variant,
            "difference": f"{100 * one.difference:+.2f}",
            "interval": f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
        }
        for one in found.differences
    ]
    first = found.differences[0]
    context = {
        "rows": rows,
        "figure": first.figure.replace("_", " "),
        "pairs": first.pairs,
        "pictures": f"{first.pictures:,}",
    }
    return Section("Against the CLIP as it is", "geodapt.lathadapter/differences.html", context)


def disk_section(run: RunRecord) -> Section | None:
    """Classes, attributes and pictures at their places."""
    if (found := _details(run)) is None:
        return None
    places = found.page.disk
    reach = _reach(places)
    context = {
        "json": _disk(places, reach),
        "distortion": as_percent(places.distortion),
        "shown": round(100 * reach),
    }
    return Section("Classes, attributes, pictures", "geodapt.lathadapter/disk.html", context)


def strips_section(run: RunRecord) -> Section | None:
    """Each attribute's nearest words and pictures, and the agreement with the known tree."""
    if (found := _details(run)) is None:
        return None
    strips = [{**one.model_dump(), "share": as_percent(one.share)} for one in found.page.strips]
    tree = [
        {
            "level": one.level,
            "groups": one.groups,
            "value": f"{one.adjusted_mutual_information:.2f}",
            "shuffled": f"{one.shuffled:.2f}",
            "above": f"{one.shuffled_above:.3f}",
        }
        for one in found.page.tree
    ]
    context = {"strips": strips, "tree": tree}
    return Section("What attributes learned", "geodapt.lathadapter/strips.html", context)


def _reach(places: DiskPlaces) -> float:
    """How far out the picture goes: a little beyond the farthest point, at most to the edge."""
    farthest = max(map(hypot, places.x, places.y), default=1.0)
    return min(1.0, 1.15 * farthest)


def _disk(places: DiskPlaces, reach: float) -> dict[str, Any]:
    figure = go.Figure()
    figure.add_shape(type="circle", x0=-1, x1=1, y0=-1, y1=1, line={"color": RULE, "width": 1})
    for kind, (name, symbol, colour, size) in MARKERS.items():
        rows = [row for row, one in enumerate(places.kind) if one == kind]
        figure.add_scatter(
            x=[places.x[row] for row in rows],
            y=[places.y[row] for row in rows],
            text=[plotly_text(places.text[row]) for row in rows],
            name=name,
            mode="markers",
            hoverinfo="text",
            marker={"symbol": symbol, "color": colour, "size": size},
        )
    ends = [-1.02 * reach, 1.02 * reach]
    figure.update_xaxes(visible=False, range=ends)
    figure.update_yaxes(visible=False, range=ends, scaleanchor="x")
    return style(figure, 460, legend={"orientation": "h", "y": -0.02})


def _details(run: RunRecord) -> AblationDetails | None:
    found = parse_part(AblationDetails, run.results, "lathadapter")
    return found if found is not None and found.differences else None


PAGE = SystemPage(
    metrics=(
        Column("harmonic_mean", "Harmonic mean", as_percent, "%", short="HM"),
        Column("base", "Base classes", as_percent, "%", short="Base"),
        Column("new", "New classes", as_percent, "%", short="New"),
        Column("all", "All classes", as_percent, "%", short="All"),
        Column("average", "Average of domains", as_percent, "%", short="Average"),
    ),
    sections=(differences_section, disk_section, strips_section),
)
