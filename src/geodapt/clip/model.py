"""A CLIP small enough to train here: transformers' own model, at the size that is asked for."""

from collections.abc import Iterable

from pydantic import Field, model_validator
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
)

from geodapt.clip.tokenizer import train_tokenizer
from geodapt.settings import Settings

MEAN = STD = (0.5, 0.5, 0.5)
"""Pixels in [0, 1] become numbers in [-1, 1]."""


class TowerSettings(Settings):
    """One transformer of the two."""

    width: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "TowerSettings":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class ModelSettings(Settings):
    """The size of a CLIP."""

    vision: TowerSettings = TowerSettings()
    text: TowerSettings = TowerSettings(layers=2)
    patch: int = Field(default=8, ge=1)
    """Side of a patch of the picture, in pixels."""
    embedding: int = Field(default=128, ge=8)
    """Width of the space that pictures and texts share."""
    vocabulary: int = Field(default=2000, ge=300)
    """Tokens of the tokenizer that is trained on the captions."""
    max_tokens: int = Field(default=32, ge=8)
    """The most tokens of a text."""


def new_clip(
    settings: ModelSettings, image_size: int, captions: Iterable[str]
) -> tuple[CLIPModel, CLIPProcessor]:
    """An untrained model by torch's seed, and a processor whose tokenizer knows the captions."""
    tokenizer = train_tokenizer(captions, settings.vocabulary, settings.max_tokens)
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
