"""A random sample of texts, in one pass and little memory."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from geodapt.data.corpus import CorpusSettings, load_corpus
from geodapt.data.domain import SPLITS, uniform
from geodapt.errors import InputError

CHARACTERS_A_TOKEN = 6
"""More than a token has in most languages, so that a passage fills what the model reads of it."""


def draw(
    settings: CorpusSettings,
    count: int,
    max_tokens: int,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
) -> list[str]:
    """``count`` passages, long enough for ``max_tokens``, of the documents of some splits.

    Documents are streamed. Raises :class:`InputError` where they cannot be read or there are none.
    """
    corpus = load_corpus(settings)
    pieces = passages(corpus.documents(*splits), CHARACTERS_A_TOKEN * max_tokens)
    found = sample(pieces, count, seed)
    if not found:
        raise InputError(
            f"{corpus.name} holds no text; give a source that does"
            if "train" in splits
            else f"{corpus.name} holds too few documents to set any aside; give more, or others "
            "to measure on"
        )
    return found


def sample(texts: Iterable[str], count: int, seed: int) -> list[str]:
    """``count`` different texts, each as likely as any other; all where there are fewer.

    Which ones depends on the texts and the seed, not on their order: those of least hash. No more
    than ``count`` are in memory at a time.
    """
    kept: list[tuple[float, str]] = []  # a heap with the greatest hash on top
    for text in texts:
        entry = (-uniform(text, seed), text)
        if (len(kept) == count and entry < kept[0]) or entry in kept:
            continue
        take = heapq.heappush if len(kept) < count else heapq.heappushpop
        take(kept, entry)
    return [text for _, text in sorted(kept, reverse=True)]


def passages(documents: Iterable[str], characters: int) -> Iterator[str]:
    """Documents cut between words into pieces of at most ``characters``.

    So that a sample sees the middle of a long document as often as its beginning. A word that is
    longer than a piece is cut.
    """
    for document in documents:
        start, length = 0, len(document)
        while start < length:
            end = start + characters
            if end < length:
                between = (document.rfind(space, start + 1, end + 1) for space in " \n")
                end = cut if (cut := max(between)) > 0 else end
            if piece := document[start:end].strip():
                yield piece
            start = end
