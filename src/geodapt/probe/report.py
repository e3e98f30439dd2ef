"""The page of ``geodapt probe``: is this data hyperbolic?"""

from typing import Any

import plotly.graph_objects as go
import torch
from torch import Tensor

from geodapt.geometry import lorentz, poincare
from geodapt.pages.plotly_style import LINES, QUIET, SOFT, SURFACE, plotly_text, style
from geodapt.pages.rendering import render_sections
from geodapt.pages.section import Section
from geodapt.probe.figures import Figures
from geodapt.probe.summary import measured_on, summary_table
from geodapt.probe.verdict import Verdict

HEIGHT = 640
LONGEST = 60  # characters of a label


def probe_page(figures: Figures, verdict: Verdict) -> str:
    """One self-contained page: the verdict, the table, the disk, the radii and the curvatures."""
    source = figures.source
    notes = "; ".join(source.notes) or f"{source.total:,} points"
    found = {
        "reasons": verdict.reasons,
        "rows": summary_table(figures),
        "measured_on": measured_on(figures),
    }
    return render_sections(
        source.name,
        f"{notes[0].upper()}{notes[1:]}.",
        [
            Section(verdict.headline, "geodapt.probe/verdict.html", found),
            Section("In the Poincaré disk", "geodapt.probe/disk.html", _disk(figures)),
            Section("Distributions", "geodapt.pages/figures.html", _histograms(figures)),
        ],
    )


def _disk(figures: Figures) -> dict[str, Any]:
    chart = style(disk(figures), HEIGHT, dragmode="pan")
    for axis in ("xaxis", "yaxis"):
        chart["layout"][axis]["fixedrange"] = False
    return {
        "points": len(figures.drawn),
        "distortion": f"{100 * figures.picture.distortion:.1f} %",
        "figure": {**chart, "config": {"scrollZoom": True}},
    }


def _histograms(figures: Figures) -> dict[str, Any]:
    graph = "the graph of nearest neighbours"
    if figures.source.edges is not None:
        graph = "the graph itself, edges to leaves left out"
    source, cloud = figures.data, figures.control
    charts = [
        ("Radius", source.radii, cloud.radii, "distance from the centre"),
        ("Curvature of edges", source.curvatures, cloud.curvatures, "curvature of an edge"),
    ]
    return {
        "note": "Radius: distance from the central point over the mean distance between points. "
        f"Curvature: Ollivier-Ricci, of {graph}; it is negative where the graph branches.",
        "legend": [
            {"name": name, "colour": colour}
            for name, colour in zip(("source", "control"), LINES, strict=False)
        ],
        "figures": [
            {
                "title": title,
                "json": style(histogram(data, control, axis), height=300, showlegend=False),
                "label": f"{title}, of the source and of the control",
            }
            for title, data, control, axis in charts
        ],
    }


def disk(figures: Figures) -> go.Figure:
    """The source in the Poincare disk: hyperbolic distances are kept as well as the plane can."""
    embedding, source = figures.picture, figures.source
    at = lorentz.to_poincare(embedding.points.double(), embedding.c) * embedding.c**0.5
    at = centred(at)
    labels = [source.labels[i] for i in figures.drawn.tolist()]
    center, radii = _radii(figures)
    figure = go.Figure()
    figure.add_shape(type="circle", x0=-1, y0=-1, x1=1, y1=1, line={"color": SOFT})
    if source.edges is not None:
        figure.add_trace(_lines(at, figures))
    figure.add_trace(
        go.Scatter(
            x=at[:, 0].tolist(),
            y=at[:, 1].tolist(),
            text=[_label(label) for label in labels],
            customdata=radii.tolist(),
            mode="markers",
            marker={
                "size": 7,
                "color": radii.tolist(),
                "colorscale": [[0.0, LINES[0]], [1.0, LINES[1]]],
                "line": {"width": 0.5, "color": SURFACE},
                "colorbar": {
                    "title": {"text": "distance from the centre", "side": "bottom"},
                    "orientation": "h",
                    "thickness": 10,
                    "len": 0.6,
                    "y": -0.02,
                    "yanchor": "top",
                    "outlinewidth": 0,
                },
            },
            hovertemplate="%{text}<br>%{customdata:.3g} from the centre<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_annotation(
        x=at[center, 0].item(), y=at[center, 1].item(), text=_label(labels[center]), showarrow=True
    )
    figure.update_annotations(arrowcolor=SOFT)
    shown = min(1.04, 1.25 * at.norm(dim=1).max().item())  # flat data lies about the centre
    axis = {"visible": False, "range": [-shown, shown]}
    figure.update_layout(xaxis=axis, yaxis={**axis, "scaleanchor": "x"})
    return figure


def centred(points: Tensor) -> Tensor:
    """The disk turned (by an isometry) so that the points' centre is its centre."""
    middle = lorentz.to_poincare(lorentz.centroid(poincare.to_lorentz(points)))
    return poincare.mobius_add(-middle, points)


def histogram(data: Tensor, control: Tensor, title: str) -> go.Figure:
    """Shares of the source and of the control in common bins."""
    both = torch.cat([data, control])
    low, high = both.min().item(), both.max().item()
    size = max(high - low, 1e-9) / 30
    figure = go.Figure()
    for name, values, colour in zip(("source", "control"), (data, control), LINES, strict=False):
        figure.add_trace(
            go.Histogram(
                x=values.tolist(),
                name=name,
                histnorm="percent",
                marker={"color": colour},
                opacity=0.65,
                xbins={"start": low, "end": high + size, "size": size},
                hovertemplate="%{x}: %{y:.1f} %<extra>" + name + "</extra>",
            )
        )
    figure.update_xaxes(title=title)
    figure.update_yaxes(title="share, %")
    return figure.update_layout(barmode="overlay")


def _radii(figures: Figures) -> tuple[int, Tensor]:
    distances = figures.source.distances[figures.drawn][:, figures.drawn]
    center = int(distances.square().sum(1).argmin())
    return center, distances[center]


def _lines(at: Tensor, figures: Figures) -> go.Scatter:
    """The graph's edges between drawn points, as one broken line."""
    edges = figures.source.edges
    assert edges is not None
    place = torch.full((len(figures.source.labels),), -1)
    place[figures.drawn] = torch.arange(len(figures.drawn))
    ends = place[edges]
    x: list[float | None] = []
    y: list[float | None] = []
    for a, b in ends[(ends >= 0).all(1)].tolist():
        x += [at[a, 0].item(), at[b, 0].item(), None]
        y += [at[a, 1].item(), at[b, 1].item(), None]
    line = {"color": QUIET, "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _label(label: str) -> str:
    """A label that fits, with what plotly would take for markup made plain."""
    return plotly_text(label if len(label) <= LONGEST else label[: LONGEST - 3] + "...")
