"""Documents as rows of a fixed number of tokens, packed one after another.

A row holds the end of one document, then whole ones, then the beginning of another. ``lengths``
says where they lie. No token attends to another document, or predicts the first token of the next:
:func:`collate` gives positions that start again at 0 and no mask, from which transformers' models
make a mask by documents, and leaves the first token of each piece out of the labels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import List as Listed
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.tokens import fingerprint
from geodapt.data.domain import SPLITS
from geodapt.data.quiet import quiet_datasets
from geodapt.errors import InputError
from geodapt.files import atomic_folder, cache_folder
from geodapt.progress import bar

PACKING_VERSION = 1
"""Part of the cache's key: raised whenever the same documents give other rows."""

IGNORED = -100
AT_ONCE = 256  # documents that are tokenized together

Row = tuple[Int[np.ndarray, " tokens"], list[int]]


def pack(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int
) -> Iterator[Row]:
    """Rows of ``length`` tokens and the lengths of the pieces in each, streamed.

    A document is its tokens between the tokenizer's start and end of text, as far as it has these.
    It goes on in the next row where it does not fit. The last tokens, which fill no row, are left
    out.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    row, pieces, at = np.empty(length, np.int32), [], 0
    for tokens in _tokenized(documents, tokenizer):
        document = np.array([*start, *tokens, tokenizer.eos_token_id], np.int32)
        while len(document):
            piece, document = document[: length - at], document[length - at :]
            row[at : at + len(piece)] = piece
            pieces.append(len(piece))
            at += len(piece)
            if at == length:
                yield row.copy(), pieces
                pieces, at = [], 0


def _tokenized(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Sequence[int]]:
    documents = iter(documents)
    while texts := list(islice(documents, AT_ONCE)):
        yield from tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def packed(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, length: int) -> dict[str, Dataset]:
    """The rows of each split, with ``input_ids`` and ``lengths``, memory-mapped from the cache.

    Raises :class:`InputError` when a split has no text, or too little for one row.
    """
    name = f"{corpus.key}-{fingerprint(tokenizer)}-{length}-packed{PACKING_VERSION}"
    folder = cache_folder() / "tokens" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another process may want the same rows: it waits, then finds them.
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            with atomic_folder(folder) as temporary, quiet_datasets():
                for split in SPLITS:
                    rows = pack(corpus.documents(split), tokenizer, length)
                    _write(
                        rows, str(temporary / f"{split}.arrow"), f"{corpus.name}, {split}", length
                    )
    return {
        split: Dataset.from_file(str(folder / f"{split}.arrow")).with_format("numpy")
        for split in SPLITS
    }


def _write(rows: Iterator[Row], path: str, name: str, length: int) -> None:
    features = Features({"input_ids": Listed(Value("int32")), "lengths": Listed(Value("int32"))})
    count = 0
    with ArrowWriter(path=path, features=features) as writer, bar(f"tokenizing {name}") as shown:
        for count, (tokens, pieces) in enumerate(rows, 1):
            writer.write({"input_ids": tokens, "lengths": pieces})
            if count % 100 == 0:
                shown.note(f"{count * length:,} tokens")
        if not count:
            raise InputError(
                f"{name}: the text is empty or shorter than one row of {length} tokens; "
                "give more text, or a smaller length"
            )
        writer.finalize()


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
