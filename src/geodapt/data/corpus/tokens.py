"""The tokenizer of a corpus: a given one, by name, or one trained on the text."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from geodapt.data.byte_pairs import byte_pairs
from geodapt.data.corpus.corpus import Corpus
from geodapt.data.corpus.settings import TokenizerSettings
from geodapt.errors import InputError, reason_of
from geodapt.files import build_once, cache_folder, short_hash
from geodapt.models import pretrained
from geodapt.paths import given

PAD, START, END = SPECIAL = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
TRAINING_VERSION = 1
"""Part of the cache's key: raised whenever the same text gives another tokenizer."""
READ = 20_000_000
"""Characters that a tokenizer is trained on, at most: more change few of its merges."""


def tokenizer_for(corpus: Corpus, asked: TokenizerSettings | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or a folder, or one trained here and kept in the cache.

    Raises :class:`InputError` when the name leads nowhere, when it has no end of text, and when
    the corpus has no text to train one on.
    """
    if isinstance(asked, str):
        return load_tokenizer(asked)
    folder = (
        cache_folder() / "tokenizers" / f"bpe{TRAINING_VERSION}-{corpus.key}-{asked.vocab_size}"
    )

    def make(temporary: Path) -> None:
        trained = train_tokenizer(corpus.documents("train"), asked.vocab_size)
        trained.save_pretrained(temporary)

    return pretrained(AutoTokenizer, str(build_once(folder, make)))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A given tokenizer; if it has no padding token, the end of text is used."""
    try:
        tokenizer = pretrained(AutoTokenizer, str(given(name)))
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        reason = reason_of(error).rstrip(".")
        raise InputError(
            f"tokenizer '{name}' could not be loaded: {reason}. Give a folder with a "
            "tokenizer.json or a hub name that is reachable, or train one here by "
            "tokenizer.vocab_size=4096"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(f"tokenizer '{name}' has no tokens; does the folder hold a tokenizer?")
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer '{name}' has no end of text, which a language model must predict; "
            "give the tokenizer of a language model such as Llama or GPT-2"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding; bytes are its alphabet, so that it encodes and decodes any text.

    Raises :class:`InputError` when there is no text.
    """
    documents = filter(None, documents)
    first = next(documents, None)
    if first is None:
        raise InputError("the corpus is empty: there is no text to train a tokenizer on")
    tokenizer = byte_pairs(_at_most(first, documents), vocabulary, SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END
    )


def _at_most(first: str, documents: Iterator[str]) -> Iterator[str]:
    """Documents up to READ characters."""
    yield first
    read = len(first)
    for text in documents:
        if read >= READ:
            return
        yield text
        read += len(text)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short hash that differs between tokenizers that give different tokens for the same text."""
    samples = ["Hello, world!\n\n  def f(x):\n\treturn x + 1", "naïve 中文 Ω 3.14159 don't"]
    told = [
        type(tokenizer).__name__,
        sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]),
        [tokenizer(text)["input_ids"] for text in samples],
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ]
    return short_hash(told)
