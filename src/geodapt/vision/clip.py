"""Any CLIP or SigLIP of transformers, from a folder or the hub, with its processor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoProcessor

from geodapt.errors import InputError
from geodapt.extras import require
from geodapt.models import as_input_errors, load_weights, locate_base, pretrained
from geodapt.progress import track

if TYPE_CHECKING:
    from PIL.Image import Image

AT_ONCE = 256


@dataclass(frozen=True)
class Clip:
    """A CLIP or SigLIP with its processor, and unit vectors from both of its towers."""

    model: Any
    """CLIPModel, SiglipModel, or another that has the same two methods for features."""
    processor: Any

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        """Unit vectors of texts."""
        # SigLIP was trained on texts padded to the full length, and wants them so.
        whole = "siglip" in self.model.config.model_type
        padding = "max_length" if whole else True

        def embed(some: Sequence[str]) -> Tensor:
            inputs = self.processor(
                text=list(some), padding=padding, truncation=True, return_tensors="pt"
            )
            return self.model.get_text_features(**inputs.to(self.model.device)).pooler_output

        return self._unit(embed, texts, "reading texts")

    @torch.inference_mode()
    def embed_images(self, images: "Sequence[Image]") -> Float[Tensor, "images d"]:
        """Unit vectors of pictures: a list, or a ``datasets`` column, which is read in pieces."""

        def embed(some: "Sequence[Image]") -> Tensor:
            inputs = self.processor(
                images=[image.convert("RGB") for image in some], return_tensors="pt"
            )
            return self.model.get_image_features(**inputs.to(self.model.device)).pooler_output

        return self._unit(embed, images, "looking at pictures")

    def _unit(self, embed: Any, inputs: Sequence, label: str) -> Tensor:
        pieces = [
            embed(inputs[start : start + AT_ONCE])
            for start in track(range(0, len(inputs), AT_ONCE), label)
        ]
        if not pieces:
            raise InputError("there is nothing to embed")
        return nn.functional.normalize(torch.cat(pieces).float(), dim=-1)


def load_clip(name: str, dtype: torch.dtype = torch.float32) -> Clip:
    """A CLIP or SigLIP, frozen and in eval mode, with its processor.

    Raises :class:`InputError` when the name leads nowhere, when the weights are pickled, cut short
    or not those of the configuration, or when the model has no two towers.
    """
    require("PIL", "pictures are read with Pillow, which is not installed", "glyphs")
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
    return Clip(model, processor)
