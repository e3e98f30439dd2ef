"""Section: how much each source domain contributed at each layer of an X-Cross model."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from geodapt.pages.formatting import decimals
from geodapt.pages.plotly_style import HEAT, INK, plotly_text, style, wrapped
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section
from geodapt.xcross.results import KINDS, Contributions


def given_by_source(exchange: Float[np.ndarray, "L n n"]) -> Float[np.ndarray, "n L"]:
    """How much each source gave at each layer, to all other streams together."""
    return exchange.sum(axis=1).T


def contributions_section(run: RunRecord) -> Section | None:
    """The contributions, where the run explains itself."""
    found: Contributions | None = parse_part(Contributions, run.results, "contributions")
    if found is None:
        return None
    exchange = {kind: np.asarray(getattr(found, kind), dtype=float) for kind in KINDS}
    by_source = {kind: given_by_source(values) for kind, values in exchange.items()}
    largest = max(float(values.max(initial=0)) for values in by_source.values())
    single = max(float(values.max(initial=0)) for values in exchange.values())
    return Section(
        "What each source domain gave",
        "geodapt.xcross/contributions.html",
        {
            "streams": found.streams,
            "sources": _sources(found, by_source),
            "weighted": bool(found.weights),
            "figures": [
                {
                    "kind": name,
                    "label": f"{name} contributions of {len(found.streams)} source domains "
                    f"at {len(found.layers)} layers",
                    "json": _heat(values, found.streams, found.layers, largest),
                }
                for name, values in zip(KINDS.values(), by_source.values(), strict=True)
            ],
            "layers": [
                {
                    "layer": layer,
                    "kinds": [
                        (name, cells(exchange[kind][index], single, without_self=True))
                        for kind, name in KINDS.items()
                    ],
                }
                for index, layer in enumerate(found.layers)
            ],
        },
    )


def _sources(
    found: Contributions, by_source: dict[str, Float[np.ndarray, "n L"]]
) -> list[dict[str, Any]]:
    """Per source: its share of all that was given, and its weight at the end."""
    totals = {kind: values.sum(axis=1) for kind, values in by_source.items()}
    digits = decimals(max(float(values.max(initial=0)) for values in totals.values()))
    everything = float(sum(values.sum() for values in totals.values()))
    rows = []
    for index, stream in enumerate(found.streams):
        amount = float(sum(values[index] for values in totals.values()))
        rows.append(
            {
                "name": stream,
                "kinds": [f"{values[index]:.{digits}f}" for values in totals.values()],
                "share": amount / everything if everything else 0.0,
                "weight": f"{found.weights[index]:.3f}" if found.weights else "",
            }
        )
    return rows


def cells(
    values: Float[np.ndarray, "rows columns"], largest: float, without_self: bool = False
) -> list[list[dict[str, Any] | None]]:
    """Numbers with the strength of their colour, 0 to 1; None on the diagonal if asked."""
    digits = decimals(largest, 2)
    return [
        [
            None
            if without_self and i == j
            else {
                "text": f"{value:.{digits}f}",
                "strength": round(float(value) / largest, 3) if largest else 0.0,
            }
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]


def _heat(
    values: Float[np.ndarray, "n L"], streams: list[str], layers: list[int], largest: float
) -> dict[str, Any]:
    names = [plotly_text(stream) for stream in streams]
    every = -(-len(layers) // 12)  # no more than twelve layers are numbered, to fit a phone
    figure = go.Figure(
        go.Heatmap(
            z=values.tolist(),
            customdata=[[[name, layer] for layer in layers] for name in names],
            zmin=0,
            zmax=largest or 1,
            colorscale=HEAT,
            xgap=2,
            ygap=2,
            colorbar={"thickness": 8, "outlinewidth": 0, "nticks": 4, "ticks": ""},
            hovertemplate="%{customdata[0]}, layer %{customdata[1]}<br>"
            f"%{{z:.{decimals(largest)}f}}<extra></extra>",
        )
    )
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(streams))),
        ticktext=[wrapped(stream, 16) for stream in streams],
        tickfont={"color": INK},
        showgrid=False,
        ticks="",
    )
    figure.update_xaxes(
        title="Layer",
        tickvals=list(range(0, len(layers), every)),
        ticktext=[str(layer) for layer in layers[::every]],
        showgrid=False,
        ticks="",
    )
    return style(figure, height=80 + 34 * len(streams))
