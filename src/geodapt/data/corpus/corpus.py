"""What every source of text gives: documents in three splits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from geodapt.data.corpus.settings import CorpusSettings
from geodapt.data.domain import uniform

SHARES = {"test": 0.1, "validation": 0.05}
"""Shares of the text; the rest trains."""


@dataclass(frozen=True)
class Corpus:
    """Text to train a language model on."""

    name: str
    key: str
    """Identifies the corpus: equal keys mean equal documents in equal order."""
    read: Callable[[], Iterator[tuple[str, str]]]
    """Streams all documents, each a split's name (train, validation or test) and a text."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a reader of results should know about it: packages, characters, files."""

    def documents(self, *splits: str) -> Iterator[str]:
        """The texts of these splits, in the order in which they are read."""
        return (text for of, text in self.read() if of in splits)


def document_split(document: str, seed: int) -> str:
    """The split of a document that stands for itself, by a hash: adding documents moves none."""
    at = uniform(document, seed)
    held = SHARES["test"] + SHARES["validation"]
    return "test" if at < SHARES["test"] else "validation" if at < held else "train"


def load_corpus(settings: CorpusSettings) -> Corpus:
    """The documents that the settings describe.

    Raises :class:`geodapt.errors.InputError` where the text is not there or cannot be read.
    """
    return settings.load()
