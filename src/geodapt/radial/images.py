"""Pictures for a dual encoder: opened, embedded, and those that cannot be read counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoImageProcessor, BaseImageProcessor

from geodapt.data.chains import Pictures
from geodapt.errors import InputError
from geodapt.extras import require
from geodapt.models import pretrained
from geodapt.paths import given
from geodapt.progress import bar
from geodapt.radial.encoders import TextEncoder
from geodapt.tinyclip.base import resolve_base

if TYPE_CHECKING:
    from PIL import Image

IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class Images:
    """Embedded pictures and what they show, and those that were skipped with the reason."""

    vectors: Float[Tensor, "n d"]
    names: list[str]
    skipped: list[tuple[str, str]]

    def note(self) -> str:
        """What a reader must be told, or nothing."""
        if not self.skipped:
            return ""
        name, reason = self.skipped[0]
        return f"{len(self.skipped):,} images skipped, such as {name}: {reason}"


class Files(Sequence):
    """Image files, each opened when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row):
        from PIL import Image

        if not self.paths[row].is_file():  # a pipe would be waited for
            raise FileNotFoundError("no file")
        with Image.open(self.paths[row]) as image:
            image.load()
            return image


def image_files(names: Sequence[str], folder: Path | str | None = None) -> Pictures:
    """Image files, each once: paths, or addresses whose last part is a file in ``folder``."""
    different = list(dict.fromkeys(names))
    if folder is None:
        return Pictures(Files([given(name) for name in different]), different)
    place = given(folder)
    return Pictures(Files([place / Path(name).name for name in different]), different)


def embed_images(encoder: TextEncoder, pictures: Pictures) -> Images:
    """Unit vectors of pictures: of :func:`image_files`, or those that a data set brings.

    What is missing or unreadable is skipped and told in the result. Raises :class:`InputError`
    where the encoder has no image tower, or no picture can be read.
    """
    require("PIL", "pictures are read with Pillow, which is not installed", "glyphs")
    if not hasattr(encoder.model, "get_image_features"):
        raise InputError(
            f"encoder '{encoder.name}' embeds texts only; images need a CLIP or a SigLIP"
        )
    processor = pretrained(AutoImageProcessor, resolve_base(encoder.name), use_fast=False)
    vectors: list[Tensor] = []
    read: list[str] = []
    skipped: list[tuple[str, str]] = []
    with bar("embedding images", len(pictures.names)) as progress:
        for start in range(0, len(pictures.names), IMAGES_AT_ONCE):
            images = []
            for row, name in enumerate(pictures.names[start : start + IMAGES_AT_ONCE], start):
                try:
                    images.append(pictures.images[row].convert("RGB"))
                    read.append(name)
                except Exception as error:  # whatever a broken picture leads to
                    skipped.append((name, str(error) or type(error).__name__))
                progress.advance()
            if images:
                vectors.append(_embed(encoder, processor, images))
    if not vectors:
        reason = skipped[0][1] if skipped else "none were given"
        raise InputError(f"none of {len(pictures.names)} images could be read ({reason})")
    return Images(torch.cat(vectors), read, skipped)


@torch.no_grad()
def _embed(
    encoder: TextEncoder, processor: BaseImageProcessor, images: "list[Image.Image]"
) -> Float[Tensor, "n d"]:
    pixels = processor(images=images, return_tensors="pt").pixel_values
    found = encoder.model.get_image_features(pixel_values=pixels.to(encoder.device))
    found = found if isinstance(found, Tensor) else found.pooler_output
    return nn.functional.normalize(found.float(), dim=-1).cpu()
