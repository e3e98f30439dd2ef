"""Images of a dual encoder: read, embedded, and those that cannot be read counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from transformers import AutoImageProcessor, BaseImageProcessor

from geodapt.errors import InputError
from geodapt.models import locate
from geodapt.progress import bar
from geodapt.radial.encoders import TextEncoder

IMAGES_AT_ONCE = 16
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Images:
    """Embedded images by the names that were asked for, and why others were skipped."""

    vectors: Float[Tensor, "n d"]
    names: list[str]
    skipped: dict[str, str]

    def note(self) -> str:
        """What a reader must be told, or nothing."""
        if not self.skipped:
            return ""
        name, reason = next(iter(self.skipped.items()))
        return f"{len(self.skipped):,} images skipped, such as {name}: {reason}"


def embed_images(
    encoder: TextEncoder, names: Sequence[str], folder: Path | str | None = None
) -> Images:
    """Unit vectors of image files.

    A name is a path, or an address whose last part is a file in ``folder``. Images that are
    missing or unreadable are skipped and told in the result. Raises :class:`InputError` where the
    encoder has no image tower, or no image can be read.
    """
    if not hasattr(encoder.model, "get_image_features"):
        raise InputError(
            f"encoder '{encoder.name}' embeds texts only; images need a CLIP or a SigLIP"
        )
    processor = AutoImageProcessor.from_pretrained(locate(encoder.name), use_fast=False)
    vectors: list[Tensor] = []
    read: list[str] = []
    skipped: dict[str, str] = {}
    different = list(dict.fromkeys(names))
    with bar("embedding images", len(different)) as progress:
        for start in range(0, len(different), IMAGES_AT_ONCE):
            images = []
            for name in different[start : start + IMAGES_AT_ONCE]:
                path = Path(name) if folder is None else Path(folder).expanduser() / Path(name).name
                try:
                    with Image.open(path) as image:
                        images.append(image.convert("RGB"))
                    read.append(name)
                except (OSError, UnidentifiedImageError, ValueError) as error:
                    skipped[name] = str(error) or type(error).__name__
                progress.advance()
            if images:
                vectors.append(_embed(encoder, processor, images))
    if not vectors:
        reason = next(iter(skipped.values()), "none were given")
        raise InputError(f"none of {len(different)} images could be read ({reason})")
    return Images(torch.cat(vectors), read, skipped)


@torch.no_grad()
def _embed(
    encoder: TextEncoder, processor: BaseImageProcessor, images: list[Image.Image]
) -> Float[Tensor, "n d"]:
    pixels = processor(images=images, return_tensors="pt").pixel_values
    found = encoder.model.get_image_features(pixel_values=pixels.to(encoder.device))
    found = found if isinstance(found, Tensor) else found.pooler_output
    return nn.functional.normalize(found.float(), dim=-1).cpu()
