"""Sections: what compression made of every layer, and what its errors look like."""

import math
import statistics
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich.console import RenderableType
from rich.text import Text

from geodapt.compress.results import AnalysedLayer, CompressionSummary, ErrorAnalysis
from geodapt.console import plain_table
from geodapt.pages.columns import HIT_AT_1, MRR, PERPLEXITY, Column, as_amount, as_score
from geodapt.pages.plotly_style import (
    ACCENT,
    LINES,
    QUIET,
    SURFACE,
    plotly_text,
    style,
    whole_ticks,
    wrapped,
)
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section, SystemPage

LEFT = "Embeddings, norms, biases and the output embedding stay as they were."
SIZE = Column("size_mb", "Size", as_amount, "MB", cost=True)
NAMES = {"svd": "SVD", "int": "Integers", "lowrank_plus_int": "Integers and low rank"}


def layers_section(run: RunRecord) -> Section | None:
    """Size and error of every layer, where the run compressed a model."""
    found: CompressionSummary | None = parse_part(CompressionSummary, run.results, "compression")
    if found is None:
        return None
    return Section(
        "Layers",
        "geodapt.compress/compressed_layers.html",
        {
            "sentence": (
                f"{len(found.layers)} linear layers with {found.weights:,} weights took "
                f"{_megabytes(found.bytes_before)} and take {_megabytes(found.bytes)}, "
                f"{found.bits_per_weight:.2f} bits per weight. {found.sentence or LEFT}"
            ),
            "calibrated": found.calibrated,
            "figure": _by_layer(found),
            "rows": [
                (
                    layer.path,
                    layer.form,
                    f"{layer.bytes / 1024:,.0f}",
                    _lost(layer.weight_error),
                    _lost(layer.output_error),
                )
                for layer in found.layers
            ],
        },
    )


def _megabytes(size: int) -> str:
    return SIZE.text(size / 2**20)


def _lost(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g}"


def errors_section(run: RunRecord) -> Section | None:
    """The errors of SVD and of integers side by side, where the run analysed them."""
    found: ErrorAnalysis | None = parse_part(ErrorAnalysis, run.results, "analysis")
    if found is None:
        return None
    pictured = [
        layer
        for layer in found.layers
        if all("picture" in layer.kinds.get(kind, {}) for kind in NAMES)
    ]
    return Section(
        "SVD or integers: what the errors look like",
        "geodapt.compress/errors.html",
        {
            "size": f"{found.bits_per_weight:.2f}",
            "verdict": found.verdict,
            "heads": ["Figure", *NAMES.values()],
            "rows": _table(found.layers),
            "layers": [
                {
                    "path": layer.path,
                    "forms": {NAMES[kind]: layer.kinds[kind]["form"] for kind in NAMES},
                    "corners": _corners(layer),
                    "curves": _curves(layer),
                }
                for layer in pictured
            ],
        },
    )


def _by_layer(found: CompressionSummary) -> dict[str, Any]:
    key, name = ("output_error", "outputs") if found.calibrated else ("weight_error", "weights")
    figure = go.Figure(
        go.Bar(
            x=list(range(len(found.layers))),
            y=[
                None if (lost := getattr(layer, key)) is None else 100 * lost
                for layer in found.layers
            ],
            text=[plotly_text(layer.path) for layer in found.layers],
            textposition="none",
            marker_color=ACCENT,
            hovertemplate="%{text}: %{y:.3~g} %<extra></extra>",
        )
    )
    numbers = range(len(found.layers))
    figure.update_xaxes(title="layer, in the model's order", showgrid=False, **whole_ticks(numbers))
    figure.update_yaxes(title=f"lost of the {name} (%)", rangemode="tozero")
    return style(figure, height=280, showlegend=False)


FIGURES = (
    ("Lost of the weights (% of |W|²)", ("weight_error",), 100),
    ("Lost of the outputs on real inputs (%)", ("output_error",), 100),
    ("The same over an error without direction", ("alignment",), 1),
    ("Rows' variances, 90th over 10th percentile", ("rows", "ratio"), 1),
    ("… of the same entries in random places", ("rows", "shuffled"), 1),
    ("… p-value of equal variances (Brown-Forsythe)", ("rows", "p_value"), 1),
    ("Columns' variances, 90th over 10th percentile", ("columns", "ratio"), 1),
    ("… of the same entries in random places", ("columns", "shuffled"), 1),
    ("… p-value of equal variances (Brown-Forsythe)", ("columns", "p_value"), 1),
    ("Excess kurtosis (uniform -1.2, normal 0)", ("kurtosis",), 1),
    ("Kolmogorov-Smirnov distance from normal", ("normal", "distance"), 1),
    ("… p-value", ("normal", "p_value"), 1),
    ("Kolmogorov-Smirnov distance from uniform", ("uniform", "distance"), 1),
    ("… p-value", ("uniform", "p_value"), 1),
    ("Effective rank (% of full)", ("effective_rank",), 100),
    ("… of the same entries in random places (%)", ("effective_rank_shuffled",), 100),
)


def _table(layers: list[AnalysedLayer]) -> list[list[str]]:
    """The median over layers of every figure, by kind."""
    rows = []
    for name, keys, scale in FIGURES:
        cells = []
        for kind in NAMES:
            values: list[Any] = [layer.kinds[kind] for layer in layers]
            for key in keys:
                values = [value[key] for value in values]
            known = [value for value in values if value is not None]
            cells.append(f"{scale * statistics.median(known):.3g}" if known else "–")
        rows.append([name, *cells])
    return rows


def _corners(layer: AnalysedLayer) -> dict[str, Any]:
    """A corner of each error matrix, in units of its own spread."""
    titles = [wrapped(name, 12) for name in NAMES.values()]
    figure = make_subplots(cols=len(NAMES), subplot_titles=titles, horizontal_spacing=0.03)
    figure.update_annotations(font_size=12)
    scale = [[0.0, LINES[1]], [0.5, SURFACE], [1.0, LINES[0]]]
    for column, kind in enumerate(NAMES, 1):
        corner = layer.kinds[kind]["picture"]["corner"]
        heat = go.Heatmap(z=corner, zmin=-3, zmax=3, colorscale=scale, showscale=column == 3)
        heat.update(hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>")
        bar = {"orientation": "h", "thickness": 10, "len": 0.6, "y": -0.02, "yanchor": "top"}
        heat.update(colorbar={**bar, "title": {"text": "spreads", "side": "bottom"}})
        figure.add_trace(heat, row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    made = style(figure, height=360, margin={"l": 8, "r": 8, "t": 56, "b": 8})
    for axis in [key for key in made["layout"] if key.startswith(("xaxis", "yaxis"))]:
        made["layout"][axis] |= {"showticklabels": False, "showgrid": False}
    return made


def _curves(layer: AnalysedLayer) -> list[dict[str, Any]]:
    """Histograms and spectra of the errors: a heading and a figure each."""
    entries, values = go.Figure(), go.Figure()
    for number, (kind, name) in enumerate(NAMES.items()):
        picture = layer.kinds[kind]["picture"]
        line = {"color": LINES[number], "width": 2, "dash": ("solid", "dash", "dot")[number]}
        at, density = picture["histogram"]["at"], picture["histogram"]["density"]
        entries.add_scatter(x=at, y=density, name=name, line=line)
        spectrum = picture["spectrum"]
        values.add_scatter(x=spectrum["at"], y=spectrum["d"], name=name, line=line)
    normal = [math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in at]
    entries.add_scatter(x=at, y=normal, name="normal", line={"color": QUIET, "width": 3})
    made = []
    for figure, title, axis, pointed in (
        (entries, "Distribution of the entries", "entry, in spreads of its matrix", "entry"),
        (values, "Singular values", "place", "place"),
    ):
        figure.update_traces(hovertemplate=f"{pointed} %{{x:.3~g}}: %{{y:.3~g}}")
        figure.update_xaxes(title=axis)
        figure.update_yaxes(rangemode="tozero")
        legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
        if figure is values:
            figure.update_xaxes(whole_ticks(spectrum["at"]))
        made.append({"title": title, "json": style(figure, height=300, legend=legend)})
    return made


def compression_tables(results: dict[str, Any]) -> Iterator[RenderableType]:
    """For the terminal: each layer's form and error, the sizes, and what the figures say."""
    found: CompressionSummary | None = parse_part(CompressionSummary, results, "compression")
    if found is None:
        return
    numbers = ("size", "weight lost", "output lost")
    headings = ("layer", "form", *numbers) if found.calibrated else ("layer", "form", *numbers[:2])
    table = plain_table(*headings, numbers=numbers)
    for layer in found.layers:
        output = "–" if layer.output_error is None else f"{100 * layer.output_error:.2f} %"
        lost = [f"{100 * layer.weight_error:.2f} %", output]
        size = f"{layer.bytes / 1024:,.0f} kB"
        cells = [layer.path, layer.form, size, *lost[: len(headings) - 3]]
        table.add_row(*map(Text, cells))
    yield table
    yield Text(
        f"\n{len(found.layers)} layers, {found.weights:,} weights: "
        f"{_megabytes(found.bytes_before)} before, {_megabytes(found.bytes)} after, "
        f"{found.bits_per_weight:.2f} bits per weight"
    )
    yield Text(found.sentence)
    yield Text(str(results.get("comparison", "")))
    analysis: ErrorAnalysis | None = parse_part(ErrorAnalysis, results, "analysis")
    for sentence in analysis.verdict if analysis else ():
        yield Text(f"- {sentence}")
    yield Text()


PAGE = SystemPage(
    metrics=(
        HIT_AT_1,
        MRR,
        Column("cosine_agreement", "Agreement of cosines", as_score, short="Agree-\nment"),
    ),
    costs=(
        PERPLEXITY,
        SIZE,
        Column("forward_ms", "Forward", as_amount, "ms", cost=True),
    ),
    sections=(layers_section, errors_section),
    tables=compression_tables,
)
