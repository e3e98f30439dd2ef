"""The columns of a comparison: what a figure is called, its unit, and which value is the best."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _score(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


@dataclass(frozen=True)
class Column:
    """One figure of a method, as people read it."""

    key: str
    """Its key in ``results.json``."""
    label: str
    show: Callable[[float], str]
    """Digits without the unit, so that a column lines up; the unit stands in its head."""
    unit: str = ""
    short: str = ""
    """The head in a narrow terminal, where ``label`` is too long."""
    cost: bool = False
    """A cost is better the smaller it is; a metric, the larger."""

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


METRICS = (
    Column("hit_at_1", "Hit@1", _percent, "%"),
    Column("hit_at_3", "Hit@3", _percent, "%"),
    Column("hit_at_5", "Hit@5", _percent, "%"),
    Column("hit_at_10", "Hit@10", _percent, "%"),
    Column("accuracy", "Accuracy", _percent, "%"),
    Column("accuracy_norm", "Accuracy by byte", _percent, "%", short="Acc. by\nbyte"),
    Column("macro_f1", "Macro F1", _percent, "%"),
    Column("mrr", "MRR", _score),
    Column("ndcg_at_10", "NDCG@10", _score, short="NDCG\n@10"),
    Column("tau_d", "Order of radii (τ_d)", _score, short="τ_d"),
    Column("precision", "Chain precision", _percent, "%", short="Chain\nprec."),
    Column("recall", "Chain recall", _percent, "%", short="Chain\nrecall"),
    Column("class_recall_at_1", "Class R@1", _percent, "%", short="Class\nR@1"),
    Column("class_recall_at_5", "Class R@5", _percent, "%", short="Class\nR@5"),
    Column("lexical_entailment", "Lexical entailment (ρ)", _score, short="Lexical\nρ"),
    Column("recall_at_1", "R@1", _percent, "%"),
    Column("recall_at_5", "R@5", _percent, "%"),
    Column("text_recall_at_1", "Text R@1", _percent, "%", short="Text\nR@1"),
    Column("text_recall_at_5", "Text R@5", _percent, "%", short="Text\nR@5"),
    Column("zero_shot_known", "Zero-shot, known", _percent, "%", short="0-shot\nknown"),
    Column("zero_shot_new", "Zero-shot, new", _percent, "%", short="0-shot\nnew"),
    Column("cosine_agreement", "Agreement of cosines", _score, short="Agree-\nment"),
)

TRAINABLE = Column(
    "trainable_parameters", "Trainable parameters", _count, short="Trainable", cost=True
)
COSTS = (
    TRAINABLE,
    Column("perplexity", "Perplexity", _seconds, cost=True),
    Column("bits_per_byte", "Bits per byte", _score, cost=True),
    Column("tokens_per_second", "Speed", _count, "tokens/s"),
    Column("size_mb", "Size", _seconds, "MB", cost=True),
    Column("forward_ms", "Forward", _seconds, "ms", cost=True),
    Column("seconds", "Time", _seconds, "s", cost=True),
    Column("peak_memory_mb", "Memory", _count, "MB", cost=True),
)

# Shares of independent test cases, for which a standard error follows from their number.
PROPORTIONS = {"hit_at_1", "hit_at_3", "hit_at_5", "hit_at_10", "accuracy"}


def standard_error(share: float, tested: int) -> float:
    """Binomial standard error of a share of independent cases: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / tested)


def present(columns: Iterable[Column], keys: Iterable[str]) -> list[Column]:
    """The columns that some row has, in the order of reading."""
    found = set(keys)
    return [column for column in columns if column.key in found]
