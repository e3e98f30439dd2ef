"""A CLIP small enough to train here: transformers' own model, at the size that is asked for."""

from collections.abc import Iterable

from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
)

from geodapt.tinyclip.settings import ModelSettings, TowerSettings
from geodapt.tinyclip.tokenizer import train_caption_tokenizer

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
