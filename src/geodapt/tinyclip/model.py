"""A CLIP small enough to train here: transformers' own model, at the size that is asked for."""

from collections.abc import Iterable

from tokenizers import normalizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from geodapt.data.byte_pairs import byte_pairs
from geodapt.tinyclip.settings import ModelSettings, TowerSettings

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


MEAN = STD = (0.5, 0.5, 0.5)
"""Pixels in [0, 1] become numbers in [-1, 1]."""


def new_clip(
    settings: ModelSettings, image_size: int, captions: Iterable[str]
) -> tuple[CLIPModel, CLIPProcessor]:
    """An untrained model by torch's seed, and a processor whose tokenizer knows the captions."""
    tokenizer = train_caption_tokenizer(captions, settings.vocabulary, settings.max_tokens)
    config = CLIPConfig(
        text_config={
            **_tower(settings.text),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": settings.max_tokens,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            **_tower(settings.vision),
            "image_size": image_size,
            "patch_size": settings.patch,
        },
        projection_dim=settings.embedding,
    )
    side = {"height": image_size, "width": image_size}
    images = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=MEAN, image_std=STD
    )
    return CLIPModel(config), CLIPProcessor(images, tokenizer)


def _tower(settings: TowerSettings) -> dict[str, int]:
    return {
        "hidden_size": settings.width,
        "intermediate_size": 4 * settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
    }
