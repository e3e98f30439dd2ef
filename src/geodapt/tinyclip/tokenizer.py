"""A small tokenizer trained on the captions themselves."""

from collections.abc import Iterable

from tokenizers import normalizers, processors
from transformers import PreTrainedTokenizerFast

from geodapt.data.byte_pairs import byte_pairs

# In this order: where the end is token 2, transformers takes a text's largest token for its end,
# as checkpoints older than that rule want it.
START, END, PAD = SPECIAL = "<|startoftext|>", "<|endoftext|>", "<|pad|>"


def train_caption_tokenizer(
    texts: Iterable[str], vocabulary: int, longest: int
) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of lower-cased words, between start and end as CLIP has them.

    Bytes are its alphabet, so that it takes any text. ``longest`` is the most tokens of a text,
    start and end counted.
    """
    lowered = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer = byte_pairs(texts, vocabulary, SPECIAL, lowered, prefix_space=True)
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        model_max_length=longest,
    )
