"""What the figures say about the errors of SVD and of integers, as sentences."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from geodapt.compress.analysis import KINDS


def error_findings(layers: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences, each made from the figures of all layers (medians)."""
    said = [_variance(layers), _in_steps(layers), _structure(layers), _distribution(layers)]
    seen = [layer for layer in layers if layer["kinds"]["svd"]["output_error"] is not None]
    if seen:  # fused experts take their inputs out of sight
        said = [_outputs(seen), _aim(seen), *said]
    return said


def median(layers: Sequence[dict[str, Any]], kind: str, *keys: str) -> float:
    """The median over layers of a figure of one kind."""
    values = []
    for layer in layers:
        value: Any = layer["kinds"][kind]
        for key in keys:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def _each(layers: Sequence[dict[str, Any]], say: Callable[[str], str]) -> str:
    return ", ".join(f"{KINDS[kind]} {say(kind)}" for kind in ("svd", "int"))


def _variance(layers: Sequence[dict[str, Any]]) -> str:
    def excess(kind: str, side: str) -> float:
        """How much more the variances differ than by chance, as a ratio."""
        return median(layers, kind, side, "ratio") / median(layers, kind, side, "shuffled")

    rows, columns = ({k: excess(k, side) for k in ("svd", "int")} for side in ("rows", "columns"))
    equal = max(rows["int"], columns["int"]) < 1.25
    fairer = all(side["int"] < side["svd"] for side in (rows, columns))
    lead = (
        "The integers' error is as large in every row and column"
        if equal
        else "The integers' error is larger in some rows or columns than in others"
        + (", though less so than the SVD's" if fairer else ", and no less so than the SVD's")
    )
    shown = [
        f"{side}: "
        + _each(layers, lambda k, side=side: f"{median(layers, k, side, 'ratio'):.2f}")  # type: ignore[misc]
        + f", chance {median(layers, 'int', side, 'shuffled'):.2f}"
        for side in ("rows", "columns")
    ]
    return f"{lead} (variances, 90th percentile over 10th; {'; '.join(shown)})."


def _in_steps(layers: Sequence[dict[str, Any]]) -> str:
    rows = median(layers, "int", "in_steps", "rows", "ratio")
    chance = median(layers, "int", "in_steps", "rows", "shuffled")
    uniform = median(layers, "int", "in_steps", "uniform", "distance")
    normal = median(layers, "int", "in_steps", "normal", "distance")
    std = median(layers, "int", "in_steps", "std")
    holds = rows / chance < 1.25 and uniform < normal
    lead = "In units of each group's rounding step it is" + ("" if holds else " not quite")
    return (
        f"{lead} spread evenly, as rounding errors are: standard deviation {std:.3f} steps (even "
        f"rounding {1 / math.sqrt(12):.3f}), Kolmogorov distance {uniform:.3f} from a uniform "
        f"distribution and {normal:.3f} from a normal one, rows' variances {rows:.2f} (chance "
        f"{chance:.2f})."
    )


def _structure(layers: Sequence[dict[str, Any]]) -> str:
    share = {k: median(layers, k, "effective_rank") for k in ("svd", "int")}
    noise = median(layers, "svd", "effective_rank_shuffled")
    gap = noise - share["svd"]
    lead = (
        "The SVD's error lies in part of the directions, as a sum of rank-one matrices does"
        if gap > 0.1
        else "The SVD's error lies in nearly all directions, like noise"
    )
    return (
        f"{lead}: effective rank {100 * share['svd']:.0f} % of full, integers' "
        f"{100 * share['int']:.0f} %, the SVD's entries in random places {100 * noise:.0f} %."
    )


def _distribution(layers: Sequence[dict[str, Any]]) -> str:
    kurtosis = median(layers, "svd", "kurtosis")
    tails = "heavier" if kurtosis > 0.3 else "no heavier" if kurtosis > -0.3 else "lighter"
    return (
        f"The tails of the SVD's error are {tails} than a normal distribution's (excess kurtosis "
        f"{kurtosis:+.2f}, integers {median(layers, 'int', 'kurtosis'):+.2f}; normal 0, uniform "
        "-1.2); Kolmogorov distance from normal "
        + _each(layers, lambda k: f"{median(layers, k, 'normal', 'distance'):.3f}")
        + "."
    )


def _outputs(layers: Sequence[dict[str, Any]]) -> str:
    errors = {k: median(layers, k, "output_error") for k in KINDS}
    best = min(errors, key=lambda kind: errors[kind])
    return (
        f"At equal size, {KINDS[best]} change{'s' if best == 'svd' else ''} the layers' outputs "
        "least on the calibration texts: "
        + ", ".join(f"{KINDS[k]} {100 * error:.2f} %" for k, error in errors.items())
        + " of their energy is lost."
    )


def _aim(layers: Sequence[dict[str, Any]]) -> str:
    aim = {k: median(layers, k, "alignment") for k in KINDS}
    lead = (
        "The SVD errs mostly in directions that the inputs hardly have"
        if aim["svd"] < 0.8
        else "The SVD's error affects the outputs as much as random noise of its size"
    )
    return (
        f"{lead}: the change of the outputs, over that by random noise of the same size, is "
        + ", ".join(f"{KINDS[k]} {value:.2f}" for k, value in aim.items())
        + "."
    )
