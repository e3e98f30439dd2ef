"""Byte-pair encoding trained on texts."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.trainers import BpeTrainer

from geodapt.progress import bar


def byte_pairs(
    texts: Iterable[str],
    vocabulary: int,
    special: Sequence[str],
    normalizer: Normalizer | None = None,
    prefix_space: bool = False,
) -> Tokenizer:
    """A tokenizer with a given number of tokens, special ones first (Sennrich et al. 2016).

    Bytes are its alphabet, as in GPT-2, so that it takes any text. With ``prefix_space`` a text's
    first word counts as one that follows another.
    """
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with bar("training a tokenizer"):
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
