"""The web page of a probe: one file that opens without a network."""

import json
from pathlib import Path

import jinja2
import plotly.graph_objects as go
import torch
from plotly.offline import get_plotlyjs
from torch import Tensor

from geodapt.files import write_text
from geodapt.geometry import lorentz
from geodapt.probe.figures import BASES, DIMENSION, Figures, Shape
from geodapt.probe.verdict import Verdict

DATA, CONTROL = "#2a6fdb", "#d98324"  # apart for the colour-blind, and on white and black
GREY = "rgba(128,128,128,0.45)"


def write_page(figures: Figures, verdict: Verdict, path: Path | str) -> None:
    """Write the page with the disk, the radii and the curvatures; the write is atomic."""
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    charts = {
        "disk": disk(figures),
        "radii": histogram(figures.data.radii, figures.control.radii, "distance from the centre"),
        "curvatures": histogram(
            figures.data.curvatures, figures.control.curvatures, "curvature of an edge"
        ),
    }
    # "</" would end the script element wherever a label holds it.
    encoded = {name: chart.to_json().replace("</", "<\\/") for name, chart in charts.items()}
    write_text(
        path,
        environment.from_string(template).render(
            figures=figures,
            verdict=verdict,
            rows=table(figures),
            measured_on=measured_on(figures),
            charts=encoded,
            plotly=get_plotlyjs(),
        ),
    )


def table(figures: Figures) -> list[tuple[str, str, str]]:
    """(figure, of the source, of the control), as the terminal and the page show them."""

    def column(shape: Shape) -> list[str]:
        delta, c = shape.delta, shape.hyperbolic.c
        least = "at least " if shape.endless else ""
        return [
            f"{100 * shape.average_delta:.3g}%",
            _range(delta.relative, min(1, 2 * delta.upper / delta.diameter), "{:.3f}"),
            _range(delta.delta, delta.upper, "{:.4g}"),
            f"{delta.diameter:.4g}",
            f"{shape.curvatures.mean().item():+.3f} ± {shape.curvatures.std().item():.3f}",
            f"{shape.hyperbolic.distortion:.1%} / {shape.euclidean.distortion:.1%}",
            f"{shape.disk.distortion:.1%} / {shape.plane.distortion:.1%}",
            f"{least}{c:.3g} ({c * delta.diameter**2:.4g} / diameter²)",
        ]

    names = [
        "average departure from a tree",
        "relative delta (0 tree, 1 far from one)",
        "Gromov's delta",
        "diameter",
        "Ollivier-Ricci curvature, mean ± spread",
        f"distortion in {DIMENSION} dimensions, hyperbolic / Euclidean",
        "distortion in 2 dimensions, hyperbolic / Euclidean",
        "curvature that fits best, c of -c",
    ]
    return list(zip(names, column(figures.data), column(figures.control), strict=True))


def _range(low: float, high: float, form: str) -> str:
    """One number, or the two between which it lies where they differ."""
    return " to ".join(dict.fromkeys([form.format(low), form.format(high)]))


def measured_on(figures: Figures) -> str:
    """What the figures of the table were taken on, in a sentence."""
    points, delta = len(figures.source.labels), figures.data.delta
    bases = "exact" if delta.exact else f"bounds from {BASES} base points"
    edges = f"{len(figures.data.curvatures):,} random edges"
    if figures.source.edges is None:
        edges += " between nearest neighbours"
    else:
        edges += ", those to leaves left out"
    return (
        f"Of {points:,} points: delta ({bases}), radii, the average of 100,000 random quadruples; "
        f"curvature of {edges}; distortions of {len(figures.drawn):,} points."
    )


def disk(figures: Figures) -> go.Figure:
    """The source in the Poincare disk: hyperbolic distances are kept as well as the plane can."""
    embedding, source = figures.picture, figures.source
    at = lorentz.to_poincare(embedding.points.double(), embedding.c) * embedding.c**0.5
    at = centred(at)
    labels = [source.labels[i] for i in figures.drawn.tolist()]
    center, radii = _radii(figures)
    figure = go.Figure()
    figure.add_shape(type="circle", x0=-1, y0=-1, x1=1, y1=1, line={"color": GREY})
    if source.edges is not None:
        figure.add_trace(_lines(at, figures))
    figure.add_trace(
        go.Scatter(
            x=at[:, 0].tolist(),
            y=at[:, 1].tolist(),
            text=[_short(label) for label in labels],
            customdata=radii.tolist(),
            mode="markers",
            marker={
                "size": 7,
                "color": radii.tolist(),
                "colorscale": "Viridis",
                "line": {"width": 0.5, "color": "white"},
                "colorbar": {
                    "title": {"text": "distance from the centre", "side": "bottom"},
                    "orientation": "h",
                    "thickness": 10,
                    "len": 0.6,
                    "y": -0.02,
                    "yanchor": "top",
                },
            },
            hovertemplate="%{text}<br>%{customdata:.3g} from the centre<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_annotation(
        x=at[center, 0].item(), y=at[center, 1].item(), text=_short(labels[center]), showarrow=True
    )
    shown = min(1.04, 1.25 * at.norm(dim=1).max().item())  # flat data lies about the centre
    axis = {"visible": False, "range": [-shown, shown]}
    figure.update_layout(
        xaxis=axis, yaxis={**axis, "scaleanchor": "x"}, dragmode="pan", height=640, margin=_MARGIN
    )
    return figure


def centred(points: Tensor) -> Tensor:
    """The disk turned (by an isometry) so that the points' centre is its centre."""
    from geodapt.geometry import poincare

    middle = lorentz.to_poincare(lorentz.centroid(poincare.to_lorentz(points)))
    return poincare.mobius_add(-middle, points)


def histogram(data: Tensor, control: Tensor, title: str) -> go.Figure:
    """Shares of the source and of the control in common bins."""
    both = torch.cat([data, control])
    low, high = both.min().item(), both.max().item()
    size = max(high - low, 1e-9) / 30
    figure = go.Figure()
    for name, values, color in (("source", data, DATA), ("control", control, CONTROL)):
        figure.add_trace(
            go.Histogram(
                x=values.tolist(),
                name=name,
                histnorm="percent",
                marker={"color": color},
                opacity=0.65,
                xbins={"start": low, "end": high + size, "size": size},
                hovertemplate="%{x}: %{y:.1f} %<extra>" + name + "</extra>",
            )
        )
    figure.update_layout(
        barmode="overlay",
        height=330,
        xaxis={"title": {"text": title}},
        yaxis={"title": {"text": "share, %"}},
        legend={"orientation": "h", "y": 1.15},
        margin={"l": 50, "r": 10, "t": 10, "b": 45},
    )
    return figure


_MARGIN = {"l": 0, "r": 0, "t": 0, "b": 70}


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
    line = {"color": GREY, "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _short(label: str) -> str:
    """A label that fits, with what plotly would take for markup made plain."""
    label = label if len(label) <= 60 else label[:57] + "..."
    return label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_json(figures: Figures, verdict: Verdict) -> str:
    """The figures for a machine."""

    def shape(s: Shape) -> dict[str, float]:
        return {
            "average_delta": s.average_delta,
            "delta": s.delta.delta,
            "delta_upper": s.delta.upper,
            "relative_delta": s.delta.relative,
            "diameter": s.delta.diameter,
            "ollivier_ricci_mean": s.curvatures.mean().item(),
            f"distortion_hyperbolic_{DIMENSION}d": s.hyperbolic.distortion,
            f"distortion_euclidean_{DIMENSION}d": s.euclidean.distortion,
            "distortion_hyperbolic_2d": s.disk.distortion,
            "distortion_euclidean_2d": s.plane.distortion,
            "curvature": -s.hyperbolic.c,
            "gain": s.gain,
        }

    content = {
        "source": figures.source.name,
        "points": figures.source.total,
        "sampled": len(figures.source.labels),
        "notes": figures.source.notes,
        "verdict": verdict.answer,
        "departure": figures.departure,
        "data": shape(figures.data),
        "control": shape(figures.control),
    }
    return json.dumps(content, indent=2)
