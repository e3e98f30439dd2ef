"""What the figures mean, in words."""

from dataclasses import dataclass

from geodapt.probe.figures import Figures


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
    if figures.data.delta.upper == 0:
        return "Its distances are exactly those of a tree (delta 0)."
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
        f"from a tree by {average:.1%} of the mean distance on average, in the cloud by "
        f"{control:.1%}."
    )


def _ricci(figures: Figures) -> str:
    data, control = figures.data.curvatures, figures.control.curvatures
    negative = (data < -1e-9).double().mean().item()
    return (
        f"{negative:.0%} of the measured edges have negative Ollivier-Ricci curvature "
        f"(control {(control < -1e-9).double().mean().item():.0%}); the mean is "
        f"{data.mean().item():+.3f} (control {control.mean().item():+.3f})."
    )


def _curvature(figures: Figures) -> str:
    data = figures.data
    flat, curved = data.euclidean.distortion, data.hyperbolic.distortion
    if curved >= flat:
        return (
            f"Its distances fit flat space ({flat:.1%} mean distortion) at least as well as "
            f"curved space ({curved:.1%}): no curvature is suggested."
        )
    return (
        f"Its distances fit best under curvature -{data.hyperbolic.c:.3g} "
        f"({curved:.1%} mean distortion, flat {flat:.1%}; the control "
        f"{figures.control.hyperbolic.distortion:.1%}, flat "
        f"{figures.control.euclidean.distortion:.1%})."
    )
