"""The parts of a CLIP's or SigLIP's two towers, whichever model of transformers it is.

============  =====================================  ============================================
              CLIP, CLIPSeg, OWL-ViT, MetaCLIP 2     SigLIP, SigLIP 2
============  =====================================  ============================================
a text is     the state of its end token, projected  the state of the last position, by a head
tokens see    the tokens before them                 all tokens, padding too
a picture is  the state of the class token           what a probe attends to, over all patches
vectors       projected                              not projected further
============  =====================================  ============================================
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from geodapt.errors import InputError


@dataclass(frozen=True)
class TextTower:
    """The text side, from token embeddings on."""

    embedding: nn.Module
    """Tokens to vectors; positions are added to its output."""
    layers: nn.ModuleList
    start: int
    """The first position after the start token: 1 in CLIP, 0 in SigLIP, which has none."""
    width: int
    positions: int
    """The most tokens of a text."""


@dataclass(frozen=True)
class ImageTower:
    """The image side. A picture's tokens are the class token, if there is one, then its patches."""

    embeddings: nn.Module
    """Pixels to tokens with their positions."""
    norm_before: nn.Module
    """CLIP's norm before the first layer; the identity in SigLIP."""
    layers: nn.ModuleList
    norm_after: nn.Module
    head: nn.Module | None
    """SigLIP's attention pooling; None in CLIP."""
    projection: nn.Module
    """Of the pooled state into the space of texts; the identity in SigLIP."""
    class_token: bool
    patch: int
    """Side of a patch in pixels."""
    side: int
    """Side of a picture in pixels that the position embeddings were trained for; 0 if flexible."""
    width: int
    flexible: bool
    """Whether it takes sequences of patches (SigLIP 2 NaFlex) instead of square pictures."""


def text_tower(model: Any) -> TextTower:
    """The text tower of a CLIP or SigLIP; raises :class:`InputError` for another architecture."""
    tower = _tower(model, "text_model", ("embeddings", "encoder", "final_layer_norm"))
    config = model.config.text_config
    return TextTower(
        embedding=tower.embeddings.token_embedding,
        layers=tower.encoder.layers,
        start=0 if is_siglip(model) else 1,
        width=config.hidden_size,
        positions=config.max_position_embeddings,
    )


def image_tower(model: Any) -> ImageTower:
    """The image tower of a CLIP or SigLIP; raises :class:`InputError` for another architecture."""
    tower = _tower(model, "vision_model", ("embeddings", "encoder", "post_layernorm"))
    config = model.config.vision_config
    # The first spelling is transformers' own, in the models that it copied from OpenAI's CLIP.
    norms = [getattr(tower, name, None) for name in ("pre_layrnorm", "pre_layernorm")]
    return ImageTower(
        embeddings=tower.embeddings,
        norm_before=next((norm for norm in norms if norm is not None), nn.Identity()),
        layers=tower.encoder.layers,
        norm_after=tower.post_layernorm,
        head=getattr(tower, "head", None),
        projection=getattr(model, "visual_projection", nn.Identity()),
        class_token=hasattr(tower.embeddings, "class_embedding"),
        patch=config.patch_size,
        side=getattr(config, "image_size", 0),
        width=config.hidden_size,
        flexible=isinstance(tower.embeddings.patch_embedding, nn.Linear),
    )


def is_siglip(model: Any) -> bool:
    """Whether a model is a SigLIP of either version."""
    return "siglip" in model.config.model_type


def _tower(model: Any, name: str, parts: tuple[str, ...]) -> Any:
    tower = getattr(model, name, None)
    if tower is not None and all(hasattr(tower, part) for part in parts):
        return tower
    found = ", ".join(part for part, _ in (model if tower is None else tower).named_children())
    raise InputError(
        f"a {type(model).__name__} has no {name} with {', '.join(parts)} (it has: {found}); "
        "give a CLIP, MetaCLIP, SigLIP or SigLIP 2"
    )
