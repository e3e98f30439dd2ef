"""What the figures mean, in words."""

from dataclasses import dataclass

from geodapt.probe.figures import DIMENSION, Figures


@dataclass(frozen=True)
class Verdict:
    """One line for the heading, and the reasons as sentences."""

    answer: str  # "likely", "perhaps" or "unlikely"
    headline: str
    reasons: list[str]


def verdict(figures: Figures) -> Verdict:
    """Whether hyperbolic methods are likely to pay for this source.

    The thresholds were set on known spaces (trees, grids, clouds); docs/probe.md lists what each
    of them measures.
    """
    gain, control = figures.data.gain, figures.control.gain
    beyond = gain > 1.5 * control  # curvature helps, and more than high dimension explains
    if gain > 1.2 and figures.departure < (0.85 if beyond else 0.6):
        answer = "likely"
    elif beyond or (gain > 1.2 and figures.departure < 0.85):
        answer = "perhaps"
    else:
        answer = "unlikely"
    headline = {
        "likely": "Hyperbolic methods are likely to pay",
        "perhaps": "Hyperbolic methods may pay: try one beside a Euclidean baseline",
        "unlikely": "Hyperbolic methods are unlikely to pay",
    }[answer]
    return Verdict(answer, headline, [_tree(figures), _ricci(figures), _curvature(figures)])


def _tree(figures: Figures) -> str:
    average, control = figures.data.average_delta, figures.control.average_delta
    if figures.data.delta.upper <= 1e-6 * figures.data.delta.diameter:
        return "Its distances are exactly those of a tree (delta 0)."
    if figures.departure < 0.05:
        return (
            f"It is nearly a tree: four points depart from one by {_percent(average)} of the mean "
            f"distance on average, in a Euclidean random cloud of the same size and spread by "
            f"{_percent(control)}."
        )
    if figures.departure < 0.5:
        how = "much more tree-like than"
    elif figures.departure < 0.8:
        how = "more tree-like than"
    elif figures.departure < 1.2:
        how = "about as tree-like as"
    else:
        how = "less tree-like than"
    return (
        f"It is {how} a Euclidean random cloud of the same size and spread: four points depart "
        f"from a tree by {_percent(average)} of the mean distance on average, in the cloud by "
        f"{_percent(control)}."
    )


def _ricci(figures: Figures) -> str:
    data, control = figures.data.curvatures, figures.control.curvatures
    negative = (data < -1e-9).double().mean().item()
    if figures.source.edges is not None:  # no neighbour graph of a cloud is like a given graph
        return (
            f"{100 * negative:.0f} % of its edges have negative Ollivier-Ricci curvature, which is "
            f"where it branches; the mean is {data.mean().item():+.3f} (0 on a grid)."
        )
    negative_control = (control < -1e-9).double().mean().item()
    return (
        f"{100 * negative:.0f} % of the edges between nearest neighbours have negative "
        f"Ollivier-Ricci curvature (control {100 * negative_control:.0f} %); "
        f"the mean is {data.mean().item():+.3f} (control {control.mean().item():+.3f})."
    )


def _curvature(figures: Figures) -> str:
    data, control = figures.data, figures.control
    flat, curved = data.euclidean.distortion, data.hyperbolic.distortion
    if data.gain <= 1.05:
        return (
            f"In {DIMENSION} dimensions flat space keeps its distances to {_percent(flat)} on "
            f"average, curved space to {_percent(curved)}: no curvature is suggested."
        )
    best = f"curvature -{data.hyperbolic.c:.3g}" + (" or beyond" if data.endless else "")
    text = (
        f"In {DIMENSION} dimensions curved space keeps its distances to {_percent(curved)} on "
        f"average, flat space to {_percent(flat)}; {best} fits best."
    )
    if control.gain > 0.8 * data.gain:
        text += (
            f" The random cloud gains about as much "
            f"({_percent(control.hyperbolic.distortion)} and "
            f"{_percent(control.euclidean.distortion)}), so this alone is no evidence."
        )
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
