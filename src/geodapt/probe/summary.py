"""The figures of a probe as a table, the sentence about what they were taken on, and JSON."""

import json

from geodapt.probe.figures import BASES, DIMENSION, Figures, Shape
from geodapt.probe.verdict import Verdict


def summary_table(figures: Figures) -> list[tuple[str, str, str]]:
    """(figure, of the source, of the control), as the terminal and the page show them."""

    def column(shape: Shape) -> list[str]:
        delta, c = shape.delta, shape.hyperbolic.c
        least = "at least " if shape.endless else ""
        return [
            _percent(shape.average_delta),
            _range(delta.relative, min(1, 2 * delta.upper / delta.diameter), "{:.3f}"),
            _range(delta.delta, delta.upper, "{:.4g}"),
            f"{delta.diameter:.4g}",
            f"{shape.curvatures.mean().item():+.3f} ± {shape.curvatures.std().item():.3f}",
            " / ".join(_percent(each.distortion) for each in (shape.hyperbolic, shape.euclidean)),
            " / ".join(_percent(each.distortion) for each in (shape.disk, shape.plane)),
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


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


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
