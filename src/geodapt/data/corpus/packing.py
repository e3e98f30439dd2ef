"""Documents as rows of a fixed number of tokens, packed one after another.

A row holds the end of one document, then whole ones, then the beginning of another. ``lengths``
says where they lie. No token attends to another document, or predicts the first token of the next:
:func:`collate` gives positions that start again at 0 and no mask, from which transformers' models
make a mask by documents, and leaves the first token of each piece out of the labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import List as Listed
from datasets.arrow_writer import ArrowWriter
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.tokens import tokenizer_fingerprint
from geodapt.data.domain import SPLITS
from geodapt.data.progress_bars import quiet_datasets
from geodapt.errors import InputError
from geodapt.files import build_once, cache_folder
from geodapt.progress import bar

PACKING_VERSION = 1
"""Part of the cache's key: raised whenever the same documents give other rows."""

IGNORED = -100
AT_ONCE = 256  # documents that are tokenized together
FEATURES = Features({"input_ids": Listed(Value("int32")), "lengths": Listed(Value("int32"))})

Row = tuple[Int[np.ndarray, " tokens"], list[int]]


class Packer:
    """Documents laid end to end in rows; one that does not fit continues in the next row."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._row, self._at = np.empty(length, np.int32), 0
        self._pieces: list[int] = []

    def add(self, document: Sequence[int]) -> Iterator[Row]:
        """The rows that a document fills up, with the lengths of the pieces in each."""
        rest = np.asarray(document, np.int32)
        while len(rest):
            piece, rest = rest[: self.length - self._at], rest[self.length - self._at :]
            self._row[self._at : self._at + len(piece)] = piece
            self._pieces.append(len(piece))
            self._at += len(piece)
            if self._at == self.length:
                yield self._row.copy(), self._pieces
                self._pieces, self._at = [], 0


def tokenized(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, list[int]]]:
    """Each document's split and tokens, with the tokenizer's start and end of text if it has them;
    streamed."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    documents = corpus.read()
    while some := list(islice(documents, AT_ONCE)):
        texts = [text for _, text in some]
        several = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for (split, _), tokens in zip(some, several, strict=True):
            yield split, [*start, *tokens, tokenizer.eos_token_id]


def packed(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int) -> dict[str, Dataset]:
    """The rows of each split, with ``input_ids`` and ``lengths``, memory-mapped from the cache.

    Raises :class:`InputError` when a split has no text, or too little for one row.
    """
    name = f"{corpus.key}-{tokenizer_fingerprint(tokenizer)}-{length}-packed{PACKING_VERSION}"
    folder = cache_folder() / "tokens" / name

    def make(temporary: Path) -> None:
        with quiet_datasets():
            _write(corpus, tokenizer, length, temporary)

    build_once(folder, make)
    return {
        split: Dataset.from_file(str(folder / f"{split}.arrow")).with_format("numpy")
        for split in SPLITS
    }


def _write(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int, folder: Path) -> None:
    """All splits in one pass over the text. The last tokens of a split that fill no row are
    dropped."""
    packers = {split: Packer(length) for split in SPLITS}
    counts, read = dict.fromkeys(SPLITS, 0), 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                ArrowWriter(path=str(folder / f"{split}.arrow"), features=FEATURES)
            )
            for split in SPLITS
        }
        shown = stack.enter_context(bar(f"tokenizing {corpus.name}"))
        for split, tokens in tokenized(corpus, tokenizer):
            for row, pieces in packers[split].add(tokens):
                writers[split].write({"input_ids": row, "lengths": pieces})
                counts[split] += 1
            read += len(tokens)
            shown.note(f"{read:,} tokens")
        for split, count in counts.items():
            if not count:
                raise InputError(
                    f"{corpus.name}: the text for {split} is empty or shorter than one row of "
                    f"{length} tokens ({read:,} tokens in all); give more text, or a smaller length"
                )
            writers[split].finalize()


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch for a causal language model: ``input_ids``, ``position_ids`` and ``labels``."""
    tokens = torch.from_numpy(np.stack([row["input_ids"] for row in rows])).long()
    positions = torch.from_numpy(
        np.stack([np.concatenate([np.arange(n) for n in row["lengths"]]) for row in rows])
    )
    return {
        "input_ids": tokens,
        "position_ids": positions,
        "labels": tokens.masked_fill(positions == 0, IGNORED),
        # With a cache transformers takes positions that start again for a continued text.
        "use_cache": False,
    }
