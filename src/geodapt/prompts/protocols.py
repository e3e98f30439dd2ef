"""The four protocols of prompt learning: what trains and what is asked, and the figures of each.

Sources: Zhou et al. 2022, "Conditional prompt learning for vision-language models" (base-to-new,
cross-data-set, domain generalisation); Zhou et al. 2022, "Learning to prompt for vision-language
models" (few-shot). Accuracies are shares, not percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool

from geodapt.data.vision.pictures import Pictures
from geodapt.errors import InputError

PROTOCOLS = ("base-to-new", "few-shot", "cross", "domain")
Protocol = Literal["base-to-new", "few-shot", "cross", "domain"]


@dataclass(frozen=True)
class ProtocolTask:
    """One training, and the test pictures that it is asked about, by the name of the figure.

    Each part is asked among its own ``names``.
    """

    train: Pictures
    tests: Mapping[str, Pictures] = field(default_factory=dict)


MAIN_FIGURE: dict[Protocol, str] = {
    "base-to-new": "harmonic_mean",
    "few-shot": "all",
    "cross": "average",
    "domain": "average",
}
"""The figure that a protocol compares learners by."""


def plan_task(
    protocol: Protocol,
    pictures: Pictures,
    shots: int,
    seed: int,
    others: Mapping[str, Pictures] | None = None,
    short: Literal["refuse", "all"] = "refuse",
) -> ProtocolTask:
    """What one seed of a protocol trains on and is asked.

    - ``base-to-new``: shots are drawn from **all** classes, then halved: ``base`` trains and is
      asked, ``new`` is only asked.
    - ``few-shot``: all classes train, ``all`` are asked.
    - ``cross``: as few-shot; then every one of ``others``, which have classes of their own.
    - ``domain``: as few-shot; then every one of ``others``, whose classes are some of these. Where
      none are given, the domains of the test split that no training picture comes from.

    Raises :class:`InputError` for an unknown protocol, ``cross`` without others, ``domain`` without
    domains, other classes under ``domain``, and as :meth:`Pictures.few_shot` does.
    """
    few = pictures.few_shot(shots, seed, short)
    match protocol:
        case "base-to-new":
            return ProtocolTask(few.base(), {"base": pictures.base(), "new": pictures.new()})
        case "few-shot":
            return ProtocolTask(few, {"all": pictures})
        case "cross":
            if not others:
                raise InputError("the protocol cross needs other data sets to be asked about")
            return ProtocolTask(few, {"source": pictures, **others})
        case "domain":
            return ProtocolTask(few, _domains(pictures, few, others or {}))
    raise InputError(f"protocol '{protocol}' is unknown; known are {', '.join(PROTOCOLS)}")


def _domains(
    pictures: Pictures, few: Pictures, others: Mapping[str, Pictures]
) -> dict[str, Pictures]:
    for title, other in others.items():
        if strange := [name for name in other.names if name not in pictures.names]:
            raise InputError(
                f"'{title}' has the class '{strange[0]}', which training does not: under the "
                "protocol domain, classes are the same in other pictures"
            )
    seen = set(few.domains("train"))
    asked = {name: pictures.of_domains([name]) for name in pictures.domains() if name not in seen}
    if not asked and not others:
        raise InputError(
            f"the pictures '{pictures.title}' have no domain that only tests; give other pictures "
            "of the same classes"
        )
    source = {} if asked else {"source": pictures}
    return {**source, **asked, **others}


def harmonic_mean(base: float, new: float) -> float:
    """``2 b n / (b + n)``; 0 where both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def protocol_figures(protocol: Protocol, accuracies: Mapping[str, float]) -> dict[str, float]:
    """The figures that a protocol reports of the parts of one trial, or of their means.

    ``base-to-new`` adds ``harmonic_mean``; ``cross`` and ``domain`` add ``average``, over all but
    ``source``.
    """
    figures = dict(accuracies)
    if protocol == "base-to-new":
        figures["harmonic_mean"] = harmonic_mean(accuracies["base"], accuracies["new"])
    elif protocol in ("cross", "domain"):
        targets = [value for name, value in accuracies.items() if name != "source"]
        if targets:
            figures["average"] = float(np.mean(targets))
    return figures


def average_of_sets(protocol: Protocol, sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The row "average" of several data sets, or of several seeds.

    As published: the harmonic mean is that of the mean base and the mean new accuracy, not the mean
    of harmonic means. Raises :class:`InputError` for no rows, and for rows of other parts.
    """
    if not sets:
        raise InputError("there are no rows to average")
    parts = list(sets[0])
    for one in sets:
        if list(one) != parts:
            raise InputError(f"rows have the parts {parts} and {list(one)}; expected the same")
    means = {part: float(np.mean([one[part] for one in sets])) for part in parts}
    return protocol_figures(protocol, means)


Answers = Mapping[str, Bool[np.ndarray, " pictures"]]
"""Of each part of a trial, whether each picture was answered right."""


def answers_as_text(right: Bool[np.ndarray, " pictures"]) -> str:
    """Answers as text, a 1 for each right one, for a stage's JSON."""
    return "".join("01"[int(one)] for one in right)


def read_answers(parts: Mapping[str, str]) -> dict[str, Bool[np.ndarray, " pictures"]]:
    """What :func:`answers_as_text` wrote of each part."""
    return {part: np.array(list(text)) == "1" for part, text in parts.items()}


@dataclass(frozen=True)
class PairedDifference:
    """How much one learner is better than another, and how sure that is."""

    difference: float
    low: float
    high: float
    """Ends of the central interval over bootstrap resamples."""
    better: float
    """Share of the resamples in which the difference is above 0."""
    pairs: int
    pictures: int


def paired_difference(
    protocol: Protocol,
    pairs: Sequence[tuple[Answers, Answers]],
    figure: str,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedDifference:
    """The first learner's figure less the second's, over pairs of one data set and seed each.

    Both of a pair answered the same pictures, after training on the same shots, batches and start.
    The bootstrap draws pairs with replacement, and within each pair the pictures of each part with
    both answers together: the four counts (both right, one, the other, none) are drawn from a
    multinomial, which is the same. The figure is that of :func:`average_of_sets`. Efron &
    Tibshirani 1993, "An introduction to the bootstrap".

    Raises :class:`InputError` for no pairs, and for answers about other pictures.
    """
    cells = [_cells(one, other) for one, other in pairs]
    if not cells:
        raise InputError("there are no pairs to compare")
    whole = [{part: counts / counts.sum() for part, counts in pair.items()} for pair in cells]
    value = _difference(protocol, whole, figure)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for number in range(resamples):
        some = [cells[i] for i in generator.integers(len(cells), size=len(cells))]
        shares = [
            {
                part: generator.multinomial(counts.sum(), counts / counts.sum()) / counts.sum()
                for part, counts in pair.items()
            }
            for pair in some
        ]
        drawn[number] = _difference(protocol, shares, figure)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    total = int(sum(counts.sum() for pair in cells for counts in pair.values()))
    better = float((drawn > 0).mean())
    return PairedDifference(value, float(low), float(high), better, len(cells), total)


def _cells(one: Answers, other: Answers) -> dict[str, np.ndarray]:
    """Pictures of each part by which was right: both, the first alone, the second alone, none."""
    if list(one) != list(other):
        raise InputError(f"a pair has answers about {list(one)} and {list(other)}")
    counts = {}
    for part in one:
        first, second = np.asarray(one[part], dtype=bool), np.asarray(other[part], dtype=bool)
        if first.shape != second.shape or not first.size:
            raise InputError(
                f"a pair has {first.size} and {second.size} answers about '{part}'; expected as "
                "many, one or more"
            )
        counts[part] = np.bincount(3 - 2 * first - second.astype(int), minlength=4)
    return counts


def _difference(
    protocol: Protocol, pairs: Sequence[Mapping[str, np.ndarray]], figure: str
) -> float:
    """Of shares in the four cells of :func:`_cells`."""
    figures = []
    for right in ((0, 1), (0, 2)):
        accuracies = [
            {part: float(shares[list(right)].sum()) for part, shares in pair.items()}
            for pair in pairs
        ]
        found = average_of_sets(protocol, accuracies)
        if figure not in found:
            raise InputError(f"'{figure}' is no figure of {protocol}; it has {', '.join(found)}")
        figures.append(found[figure])
    return figures[0] - figures[1]
