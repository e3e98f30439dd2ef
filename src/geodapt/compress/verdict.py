"""What the figures say about the two kinds of error, in words."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from geodapt.compress.analysis import KINDS


def verdict(layers: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences, each made from the figures of all layers (medians)."""
    said = [_variance(layers), _in_steps(layers), _structure(layers), _distribution(layers)]
    if all(layer["kinds"]["svd"]["output_error"] is not None for layer in layers):
        said += [_outputs(layers), _aim(layers)]
    return [sentence for sentence in said if sentence]


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
        """How much wider variances range than chance makes them, as a ratio."""
        return median(layers, kind, side, "ratio") / median(layers, kind, side, "shuffled")

    rows, columns = ({k: excess(k, side) for k in ("svd", "int")} for side in ("rows", "columns"))
    equal = max(rows["int"], columns["int"]) < 1.25
    fairer = all(side["int"] < side["svd"] for side in (rows, columns))
    lead = (
        "The variance of the integers' error is the same everywhere, as claimed."
        if equal
        else "The variance of the integers' error is not the same everywhere"
        + (", but nearer to it than the SVD's." if fairer else ", and no nearer to it.")
    )
    shown = [
        f"{side}: "
        + _each(layers, lambda k, side=side: f"{median(layers, k, side, 'ratio'):.2f}")  # type: ignore[misc]
        + f", chance {median(layers, 'int', side, 'shuffled'):.2f}"
        for side in ("rows", "columns")
    ]
    return f"{lead} Variances, 90th percentile over 10th; of {'; of '.join(shown)}."


def _in_steps(layers: Sequence[dict[str, Any]]) -> str:
    rows = median(layers, "int", "in_steps", "rows", "ratio")
    chance = median(layers, "int", "in_steps", "rows", "shuffled")
    uniform = median(layers, "int", "in_steps", "uniform", "distance")
    normal = median(layers, "int", "in_steps", "normal", "distance")
    std = median(layers, "int", "in_steps", "std")
    holds = rows / chance < 1.25 and uniform < normal
    lead = "Measured in each group's own step, it is" if holds else "Even in steps it is not quite"
    return (
        f"{lead} uniform: spread {std:.3f} steps (uniform rounding {1 / math.sqrt(12):.3f}), "
        f"Kolmogorov distance {uniform:.3f} from uniform and {normal:.3f} from normal, rows' "
        f"variances {rows:.2f} (chance {chance:.2f})."
    )


def _structure(layers: Sequence[dict[str, Any]]) -> str:
    share = {k: median(layers, k, "effective_rank") for k in ("svd", "int")}
    noise = median(layers, "svd", "effective_rank_shuffled")
    gap = noise - share["svd"]
    lead = (
        "The SVD's error is structured in its spectrum"
        if gap > 0.1
        else "The SVD's error is a sum of so many small rank-one terms that its spectrum is hardly "
        "told from noise"
    )
    return (
        f"{lead}: effective rank {share['svd']:.0%} of full, integers {share['int']:.0%}, the "
        f"SVD's entries in random places {noise:.0%}."
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
        f"At equal size, {KINDS[best]} lose{'s' if best == 'svd' else ''} least of the layers' "
        "outputs on real inputs: "
        + ", ".join(f"{KINDS[k]} {error:.2%}" for k, error in errors.items())
        + " of their energy."
    )


def _aim(layers: Sequence[dict[str, Any]]) -> str:
    aim = {k: median(layers, k, "alignment") for k in KINDS}
    lead = (
        "The SVD keeps its error out of the inputs' way"
        if aim["svd"] < 0.8
        else "The SVD's error meets the inputs much as one without direction would"
    )
    return (
        f"{lead}: what each does to the outputs, over what an error of its size without direction "
        "would do, is " + ", ".join(f"{KINDS[k]} {value:.2f}" for k, value in aim.items()) + "."
    )
