"""The two tasks: ranking candidates after a history, and classifying a text.

A task turns a domain's splits into rows that the collator pads, and logits into figures. The
encoders do not care which one it is.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import datasets
import numpy as np
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.data import Domain, LabelledDomain
from geodapt.errors import InputError
from geodapt.metrics.classification import classification_metrics
from geodapt.metrics.ranking import ranking_metrics, target_ranks
from geodapt.training import Rows
from geodapt.xcross.prompts import ItemPrompts, TextPrompts
from geodapt.xcross.results import Candidate, Example
from geodapt.xcross.settings import PromptSettings


class Task(Protocol):
    """What the methods need to know of a domain."""

    name: str
    outputs: int
    """Scores per prompt."""
    headline: str
    """The figure that chooses the best weights."""

    def training_rows(self, share: float, visits: int, seed: int) -> Rows: ...

    def rows(self, split: str) -> Rows: ...

    def sizes(self) -> dict[str, int]: ...

    def example(self, index: int, logits: Tensor) -> Example: ...

    def metrics(self, logits: Tensor, labels: Tensor | None = None) -> dict[str, float]: ...

    def ranks(self, logits: Tensor, labels: Tensor) -> list[int]: ...

    def groups(self) -> list[str]: ...


class RankingTask:
    """Find the true next item among sampled negatives; the true one is candidate 0."""

    outputs, headline = 1, "hit_at_1"

    def __init__(
        self,
        domain: Domain,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSettings,
        training_negatives: int,
    ) -> None:
        self.name, self.domain = domain.name, domain
        self.prompts = ItemPrompts(domain.items["name"], domain.items["text"], tokenizer, prompts)
        self.training_negatives = training_negatives

    def training_rows(self, share: float, visits: int, seed: int) -> Rows:
        """A share of the training rows, each ``visits`` times with newly drawn negatives."""
        chosen = _share(self.domain.splits["train"], share, seed, self.name)
        return _RankingRows(chosen, self.prompts, visits, self.training_negatives, seed)

    @cache  # noqa: B019 - a task lives as long as its run
    def rows(self, split: str) -> "_RankingRows":
        """All rows with all their negatives, in order of length so that padding is short."""
        data = self.domain.splits[split]
        order = np.argsort([len(history) for history in data["history"]], kind="stable")
        return _RankingRows(data.select(order), self.prompts)

    def sizes(self) -> dict[str, int]:
        data = self.domain.splits
        candidates = 1 + len(data["test"][0]["negatives"])
        return {**{name: len(data[name]) for name in data}, "candidates": candidates}

    def example(self, index: int, logits: Tensor) -> Example:
        """A test row in names: its history, and its candidates with their scores, best first."""
        row = self.rows("test").data[index]
        names = self.domain.items["name"]
        candidates = [row["target"], *row["negatives"]]
        scored = [
            Candidate(name=names[item], score=score, is_target=item == row["target"])
            for item, score in zip(candidates, logits.tolist(), strict=True)
        ]
        history = [names[item] for item in row["history"]]
        return Example(history=history, candidates=sorted(scored, key=lambda one: -one.score))

    def metrics(self, logits: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        return ranking_metrics(logits)

    def ranks(self, logits: Tensor, labels: Tensor) -> list[int]:
        """The rank of the true item of every test row, 1 for the best."""
        return target_ranks(logits).tolist()

    def groups(self) -> list[str]:
        """What the test rows belong to, whose rows are not independent: a file, or a user."""
        return [row["user"].partition("::")[0] for row in self.rows("test").data]


class ClassificationTask:
    """Name the label of a text."""

    headline = "accuracy"

    def __init__(
        self, domain: LabelledDomain, tokenizer: PreTrainedTokenizerBase, prompts: PromptSettings
    ) -> None:
        self.name, self.domain, self.outputs = domain.name, domain, len(domain.labels)
        self.prompts = TextPrompts(tokenizer, prompts)

    def training_rows(self, share: float, visits: int, seed: int) -> Rows:
        chosen = _share(self.domain.splits["train"], share, seed, self.name)
        return _LabelledRows(chosen, self.prompts)

    @cache  # noqa: B019 - a task lives as long as its run
    def rows(self, split: str) -> "_LabelledRows":
        return _LabelledRows(self.domain.splits[split], self.prompts)

    def sizes(self) -> dict[str, int]:
        data = self.domain.splits
        return {**{name: len(data[name]) for name in data}, "labels": self.outputs}

    def example(self, index: int, logits: Tensor) -> Example:
        """A test row: its text, and the labels with their scores, best first."""
        row = self.domain.splits["test"][index]
        scored = [
            Candidate(name=name, score=score, is_target=label == row["label"])
            for label, (name, score) in enumerate(
                zip(self.domain.labels, logits.tolist(), strict=True)
            )
        ]
        return Example(text=row["text"], candidates=sorted(scored, key=lambda one: -one.score))

    def metrics(self, logits: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        assert labels is not None
        return classification_metrics(logits, labels)

    def ranks(self, logits: Tensor, labels: Tensor) -> list[int]:
        """The rank of the true label of every test row, 1 for the best."""
        return target_ranks(logits, labels).tolist()

    def groups(self) -> list[str]:
        """Every text by itself."""
        return [str(number) for number in range(len(self.rows("test")))]


def make_task(
    domain: Domain | LabelledDomain,
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptSettings,
    training_negatives: int,
) -> Task:
    """The task that a domain's kind of data calls for."""
    if isinstance(domain, Domain):
        return RankingTask(domain, tokenizer, prompts, training_negatives)
    return ClassificationTask(domain, tokenizer, prompts)


def visits_needed(rows: int, steps: int, rows_a_step: int) -> int:
    """How many times each row must be offered so that no draw of negatives repeats."""
    return max(1, math.ceil(steps * rows_a_step / max(rows, 1)))


def _share(data: datasets.Dataset, share: float, seed: int, name: str) -> datasets.Dataset:
    if not 0 < share <= 1:
        raise InputError(f"{name}: a share of the training rows is in (0, 1], not {share}")
    if share == 1 or len(data) == 0:
        return data
    order = np.random.default_rng([seed, len(data)]).permutation(len(data))
    return data.select(sorted(order[: max(1, round(share * len(data)))]))


class _RankingRows:
    def __init__(
        self,
        data: datasets.Dataset,
        prompts: ItemPrompts,
        visits: int = 1,
        negatives: int | None = None,
        seed: int = 0,
    ) -> None:
        self.data: Sequence[dict[str, Any]] = data.to_list()
        self.prompts, self.visits, self.negatives, self.seed = prompts, visits, negatives, seed

    def __len__(self) -> int:
        return len(self.data) * self.visits

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.data[index % len(self.data)]
        negatives = row["negatives"]
        if self.negatives is not None and self.negatives < len(negatives):
            # A function of the index alone: a resumed training draws the same.
            draw = np.random.default_rng([self.seed, index])
            negatives = draw.choice(negatives, self.negatives, replace=False).tolist()
        return {"prompts": self.prompts(row["history"], [row["target"], *negatives]), "labels": 0}


class _LabelledRows:
    def __init__(self, data: datasets.Dataset, prompts: TextPrompts) -> None:
        self.prompts = prompts(data["text"])
        self.labels = list(data["label"])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"prompts": [self.prompts[index]], "labels": self.labels[index]}
