"""The page of ``geodapt adapters info --picture``: how adapters overlap, pair by pair."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import plotly.graph_objects as go

from geodapt.adapters import Adapter, overlaps
from geodapt.adapters.overlap import Overlap, spectrum
from geodapt.pages.plotly_style import (
    ACCENT,
    HEAT,
    INK,
    LINES,
    SURFACE,
    plotly_text,
    style,
    whole_ticks,
    wrapped,
)
from geodapt.pages.rendering import render_sections
from geodapt.pages.section import Section

OPPOSED = [[0.0, LINES[1]], [0.5, SURFACE], [1.0, ACCENT]]
TICKS = 8
"""Layers that are named on the axis; the others' names show when pointed at."""

Pairs = Mapping[tuple[str, str], Mapping[str, Overlap]]


def overlap_page(adapters: Mapping[str, Adapter]) -> str:
    """One self-contained page: which pairs share row spaces, which agree or oppose, and where."""
    pairs = {
        (one, two): overlaps(adapters[one], adapters[two]) for one, two in combinations(adapters, 2)
    }
    sections = [Section("Spectrum", "geodapt.pages/figures.html", _spectra(adapters))]
    if pairs:
        sections = [
            Section(
                "Pairs of adapters", "geodapt.pages/figures.html", _matrices(list(adapters), pairs)
            ),
            Section("Layer by layer", "geodapt.pages/figures.html", _by_layer(pairs)),
            *sections,
        ]
    names = ", ".join(adapters)
    return render_sections(
        "How adapters overlap",
        f"{names}: two adapters that share their row spaces act on the same inputs. If their "
        "updates then agree they add up; if they oppose each other, no weighted sum of the two "
        "does justice to both.",
        sections,
    )


def _matrices(names: list[str], pairs: Pairs) -> dict[str, Any]:
    return {
        "note": "Means over the layers that both adapters touch.",
        "legend": [],
        "figures": [
            {
                "title": title,
                "json": _matrix(names, pairs, field, scale, low),
                "label": f"{title} of each pair of {len(names)} adapters",
            }
            for title, field, scale, low in (
                ("Row space shared, 0 to 1", "shared", HEAT, 0),
                ("Agreement, -1 opposed to +1 alike", "agreement", OPPOSED, -1),
            )
        ],
    }


def _matrix(
    names: list[str], pairs: Pairs, field: str, scale: list[list[Any]], low: int
) -> dict[str, Any]:
    rows: list[list[float | None]] = []
    for one in names:
        row: list[float | None] = []
        for two in names:
            found = pairs.get((one, two)) or pairs.get((two, one)) or {}
            values = [getattr(overlap, field) for overlap in found.values()]
            row.append(1.0 if one == two else sum(values) / len(values) if values else None)
        rows.append(row)
    places, labels = list(range(len(names))), [wrapped(name, 14) for name in names]
    figure = go.Figure(
        go.Heatmap(
            z=rows,
            zmin=low,
            zmax=1,
            colorscale=scale,
            xgap=2,
            ygap=2,
            showscale=False,
            texttemplate="%{z:.2f}",
            customdata=[[[plotly_text(one), plotly_text(two)] for two in names] for one in names],
            hovertemplate="%{customdata[0]}, %{customdata[1]}: %{z:.3f}<extra></extra>",
        )
    )
    ticks = {"tickvals": places, "ticktext": labels, "showgrid": False, "ticks": ""}
    figure.update_xaxes(**ticks, tickfont={"color": INK})
    figure.update_yaxes(**ticks, tickfont={"color": INK}, autorange="reversed")
    return style(figure, height=110 + 34 * len(names))


def _by_layer(pairs: Pairs) -> dict[str, Any]:
    layers = list(dict.fromkeys(path for found in pairs.values() for path in found))
    colours = {pair: LINES[number % len(LINES)] for number, pair in enumerate(pairs)}
    figures = []
    for title, field in (("Agreement", "agreement"), ("Row space shared", "shared")):
        figure = go.Figure(
            [
                _curve(
                    [layers.index(path) for path in found],
                    [getattr(overlap, field) for overlap in found.values()],
                    ", ".join(pair),
                    colours[pair],
                    [plotly_text(path) for path in found],
                )
                for pair, found in pairs.items()
            ]
        )
        every = -(-len(layers) // TICKS) or 1
        figure.update_xaxes(
            tickvals=list(range(0, len(layers), every)),
            ticktext=[plotly_text(_short(path)) for path in layers[::every]],
        )
        low = -1.05 if field == "agreement" else -0.05
        figure.update_yaxes(range=[low, 1.05], nticks=5)
        json = style(figure, height=260, showlegend=False)
        figures.append({"title": title, "json": json, "label": f"{title} of each pair by layer"})
    return {
        "note": f"{len(layers)} layers; point at one for its name.",
        "legend": [
            {"name": ", ".join(pair), "colour": colour}
            for pair, colour in colours.items()
            if pairs[pair]
        ],
        "figures": figures,
    }


def _spectra(adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    colours = {name: LINES[number % len(LINES)] for number, name in enumerate(adapters)}
    figure = go.Figure()
    for name, adapter in adapters.items():
        spectra = [spectrum(factors) for factors in adapter.factors.values()]
        longest = max(len(d) for d in spectra)
        means = [
            sum(float(d[i]) for d in spectra if i < len(d)) / sum(i < len(d) for d in spectra)
            for i in range(longest)
        ]
        figure.add_trace(_curve(list(range(1, longest + 1)), means, name, colours[name]))
    terms = [term for trace in figure.data for term in trace.x]
    figure.update_xaxes(title="term", **whole_ticks(terms))
    figure.update_yaxes(title="singular value", rangemode="tozero", nticks=5)
    return {
        "note": "Singular values of the updates, the mean over each adapter's layers.",
        "legend": [{"name": name, "colour": colour} for name, colour in colours.items()],
        "figures": [
            {
                "title": "Singular values",
                "json": style(figure, height=260, showlegend=False),
                "label": f"Singular values of {len(adapters)} adapters, by term",
            }
        ],
    }


def _curve(
    x: list[int], y: list[float], name: str, colour: str, said: list[str] | None = None
) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        name=plotly_text(name),
        text=said,
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={"size": 5},
        hovertemplate=("%{text}: " if said else "term %{x}: ") + "%{y:.3~g}",
    )


def _short(path: str) -> str:
    """A layer's number and last name."""
    numbers = [part for part in path.split(".") if part.isdecimal()]
    return " ".join([*numbers[:1], path.rsplit(".", 1)[-1]])
