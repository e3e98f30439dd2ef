"""Any CLIP or SigLIP of transformers, from a folder or the hub, with its processor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoProcessor

from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.extras import require_pillow
from geodapt.models import as_input_errors, load_weights, locate_base, pretrained
from geodapt.progress import track
from geodapt.vision.dense import DenseFeatures, Residual, dense_features
from geodapt.vision.images import as_rgb, require_pictures
from geodapt.vision.text import ClipTextEncoder, pooled, text_from_embeddings, text_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

AT_ONCE = 64
"""Pictures, or texts, that pass a tower together."""


@dataclass(frozen=True)
class Clip:
    """A CLIP or SigLIP with its processor, and unit vectors from both of its towers.

    >>> clip = load_clip("openai/clip-vit-base-patch32")  # doctest: +SKIP
    >>> texts = clip.embed_texts(["a photo of a cat", "a photo of a dog"])  # doctest: +SKIP
    >>> clip.logits(clip.embed_images([picture]), texts).softmax(-1)  # doctest: +SKIP
    """

    model: Any
    """CLIPModel, SiglipModel, or another that has the same two methods for features."""
    processor: Any
    """transformers' processor, with ``tokenizer`` and ``image_processor``."""
    name: str = ""

    @cached_property
    def texts(self) -> ClipTextEncoder:
        """The text side alone."""
        return ClipTextEncoder(self.model, self.processor.tokenizer, self.name)

    # Without gradients, on the CPU

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        """Unit vectors of texts, which are cut where the model's positions end."""
        if not len(texts := texts_of(texts)):
            raise InputError("there is nothing to embed: no texts")
        return self.texts.embed(texts, "reading texts")

    def embed_images(self, images: "Sequence[Image]") -> Float[Tensor, "images d"]:
        """Unit vectors of pictures: a list, or a ``datasets`` column, which is read in pieces.

        Raises :class:`InputError` for a picture that is not right
        (:func:`geodapt.vision.images.as_rgb`).
        """
        return nn.functional.normalize(self.image_features(images), dim=-1)

    @torch.no_grad()
    def image_features(self, images: "Sequence[Image]") -> Float[Tensor, "images d"]:
        """As :meth:`embed_images`, before vectors are scaled to length 1."""
        require_pictures(images)
        parts = []
        for start in track(range(0, len(images), AT_ONCE), "looking at pictures"):
            pixels = self.pixels(images[start : start + AT_ONCE])
            parts.append(pooled(self.model.get_image_features(**pixels)).float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        """As :meth:`embed_texts`, before vectors are scaled to length 1."""
        if not len(texts := texts_of(texts)):
            raise InputError("there is nothing to embed: no texts")
        parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
        return torch.cat([self.texts.vectors(self.tokens(part)).float().cpu() for part in parts])

    # With gradients, on the model's device

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as tokens: CLIP's as long as the longest, SigLIP's as long as its positions."""
        return {
            name: value.to(self.model.device) for name, value in self.texts.tokens(texts).items()
        }

    def pixels(self, images: "Sequence[Image]") -> dict[str, Tensor]:
        """Pictures as the model's own processor makes them: resized, cut, normalised."""
        rgb = [as_rgb(image) for image in images]
        made = self.processor.image_processor(images=rgb, return_tensors="pt")
        return {name: value.to(self.model.device) for name, value in made.items()}

    def normalise(
        self, images: "Sequence[Image]", size: tuple[int, int] | None = None
    ) -> Float[Tensor, "images 3 height width"]:
        """Pictures at their own size or at ``(height, width)``, in the model's range of pixels.

        Raises :class:`InputError` for pictures of different sizes without a ``size``.
        """
        import numpy as np
        from PIL.Image import Resampling

        require_pictures(images)
        rgb = [as_rgb(image) for image in images]
        if size is not None:
            rgb = [image.resize(size[::-1], Resampling.BICUBIC) for image in rgb]
        if len({image.size for image in rgb}) != 1:
            raise InputError("pictures of one batch need one size; give size=(height, width)")
        made = self.processor.image_processor
        mean, std = (
            torch.tensor(value).view(3, 1, 1) for value in (made.image_mean, made.image_std)
        )
        values = torch.stack([torch.from_numpy(np.array(image)) for image in rgb])
        return ((values.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(self.model.device)

    def text_vectors(self, tokens: dict[str, Tensor]) -> Float[Tensor, "n d"]:
        """Unit vectors of :meth:`tokens`, in their order."""
        return text_vectors(self.model, tokens)

    def text_from_embeddings(
        self, embeddings: Float[Tensor, "n tokens width"], tokens: dict[str, Tensor]
    ) -> Float[Tensor, "n d"]:
        """Unit vectors of texts whose token embeddings are given.

        See :func:`geodapt.vision.text.text_from_embeddings`.
        """
        return text_from_embeddings(self.model, embeddings, tokens)

    def image_vectors(self, pixels: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """Unit vectors of :meth:`pixels`."""
        return nn.functional.normalize(
            pooled(self.model.get_image_features(**pixels)).float(), dim=-1
        )

    def dense_features(
        self,
        pixels: Float[Tensor, "n 3 height width"],
        residual: Residual | None = None,
        layers: Sequence[int] = (),
    ) -> DenseFeatures:
        """Unit vectors of each patch of :meth:`normalise`'s pictures, comparable with texts'.

        See :func:`geodapt.vision.dense.dense_features`.
        """
        return dense_features(self.model, pixels, residual, layers)

    def logits(
        self, images: Float[Tensor, "images d"], texts: Float[Tensor, "texts d"]
    ) -> Float[Tensor, "images texts"]:
        """The model's own similarity of unit vectors: ``scale * cosine``, and SigLIP's bias.

        CLIP was trained on their softmax over texts, SigLIP on the sigmoid of each.
        """
        return (images @ texts.T) * self.scale.to(images.device) + self.bias.to(images.device)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by: the inverse of the temperature."""
        if not hasattr(self.model, "logit_scale"):
            raise InputError(f"a {type(self.model).__name__} has no logit_scale, so no logits")
        return self.model.logit_scale.exp().squeeze()

    @property
    def bias(self) -> Float[Tensor, ""]:
        """What is added to scaled cosines: SigLIP's bias; 0 in CLIP."""
        bias = getattr(self.model, "logit_bias", None)
        return torch.zeros((), device=self.model.device) if bias is None else bias.squeeze()


def load_clip(name: str | Path, dtype: torch.dtype = torch.float32) -> Clip:
    """A CLIP or SigLIP by its folder or hub name, frozen and in eval mode, with its processor.

    Raises :class:`InputError` when the name leads nowhere, when the weights are pickled, cut short
    or not those of the configuration, or when the model has no two towers.
    """
    name = str(name)
    require_pillow()
    if name == "clip-glyphs":  # a base of recipes, which a floor above trains
        raise InputError(
            "'clip-glyphs' is trained on this machine; load it by "
            "geodapt.tinyclip.load_tinyclip(), which trains it first where that is needed"
        )
    location = locate_base(name)
    with as_input_errors(name):
        model = load_weights(name, location, dtype)
        processor = pretrained(AutoProcessor, location)
    if not all(hasattr(model, part) for part in ("get_text_features", "get_image_features")):
        raise InputError(
            f"model '{name}' is a {type(model).__name__}, which does not embed both pictures and "
            "texts; give a CLIP or SigLIP, such as openai/clip-vit-base-patch32"
        )
    model.requires_grad_(False).eval()
    return Clip(model, processor, name)
