"""The columns of a comparison: a figure's name, its unit, and which value is best."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


def as_percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def as_score(value: float) -> str:
    """A number with three decimals."""
    return f"{value:.3f}"


def as_count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def as_amount(value: float) -> str:
    """A quantity with one decimal below 100 and none above; below one, with two digits."""
    if 0 < value < 1:
        return f"{value:.2g}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def as_perplexity(value: float) -> str:
    """A perplexity with one decimal, from 1000 on without."""
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class Column:
    """One figure of a method, as people read it."""

    key: str
    """Its key in ``results.json``."""
    label: str
    show: Callable[[float], str]
    """Digits without the unit, so that a column aligns; the unit is in its head."""
    unit: str = ""
    short: str = ""
    """The head in a narrow terminal, where ``label`` is too long."""
    cost: bool = False
    """A cost is better the smaller it is; a metric, the larger."""
    proportion: bool = False
    """A share of independent test cases, whose standard error follows from their number."""

    @property
    def axis(self) -> str:
        """The label and the unit, for an axis or a chart: ``Hit@1 (%)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def noun(self) -> str:
        """The label inside of a sentence: ``perplexity``, but ``Hit@1`` and ``MRR``."""
        first, *rest = self.label.split(" ", 1)
        plain = first[1:].replace("-", "").replace(",", "")
        return " ".join([first.lower() if plain.isalpha() and plain.islower() else first, *rest])

    def text(self, value: float) -> str:
        """Digits and unit, for a sentence."""
        return f"{self.show(value)}\N{NO-BREAK SPACE}{self.unit}".strip()

    def difference(self, value: float, other: float) -> str:
        """How far apart two values are, in words: percentages differ by points."""
        digits = self.show(abs(value - other))
        return f"{digits} points" if self.unit == "%" else digits

    def best(self, values: Iterable[float | None]) -> float | None:
        """The best value; of a cost the smallest above zero, since nothing costs nothing."""
        present = [value for value in values if value is not None]
        if self.cost:
            return min((value for value in present if value > 0), default=None)
        return max(present, default=None)

    def is_best(self, value: float | None, values: Iterable[float | None]) -> bool:
        """Whether a value reads the same as the best one: what looks equal is marked equally.

        Where nothing else could be better or worse, nothing is the best.
        """
        values = list(values)
        judged = [v for v in values if v is not None and (v > 0 or not self.cost)]
        if len({self.show(v) for v in judged}) < 2:
            return False
        best = self.best(values)
        return best is not None and value is not None and self.show(value) == self.show(best)


# Columns that several systems have.
HIT_AT_1 = Column("hit_at_1", "Hit@1", as_percent, "%", proportion=True)
MRR = Column("mrr", "MRR", as_score)
RANKING = (
    HIT_AT_1,
    Column("hit_at_3", "Hit@3", as_percent, "%", proportion=True),
    Column("hit_at_5", "Hit@5", as_percent, "%", proportion=True),
    Column("hit_at_10", "Hit@10", as_percent, "%", proportion=True),
    MRR,
    Column("ndcg_at_10", "NDCG@10", as_score, short="NDCG\n@10"),
)
"""The figures of :func:`geodapt.metrics.ranking_metrics`."""
ACCURACY = Column("accuracy", "Accuracy", as_percent, "%", proportion=True)
PERPLEXITY = Column("perplexity", "Perplexity", as_perplexity, cost=True)

# Columns that every run has.
TRAINABLE = Column(
    "trainable_parameters", "Trainable parameters", as_count, short="Trainable", cost=True
)
SECONDS = Column("seconds", "Time", as_amount, "s", cost=True)
MEMORY = Column("peak_memory_mb", "Memory", as_count, "MB", cost=True)


def standard_error(share: float, tested: int) -> float:
    """Binomial standard error of a share of independent cases: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / tested)
