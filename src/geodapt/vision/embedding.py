"""Embeds many pictures; those that cannot be read are skipped and reported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError
from geodapt.progress import bar
from geodapt.vision.clip import Clip
from geodapt.vision.images import as_rgb

AT_ONCE = 16


@dataclass(frozen=True)
class EmbeddedImages:
    """Unit vectors of pictures with their names, and the pictures that were skipped."""

    vectors: Float[Tensor, "n d"]
    names: list[str]
    skipped: list[tuple[str, str]]
    """Name and reason."""

    def note(self) -> str:
        """How many pictures were skipped and why the first was; empty if none were."""
        if not self.skipped:
            return ""
        name, reason = self.skipped[0]
        return f"{len(self.skipped):,} images skipped, such as {name}: {reason}"


@torch.no_grad()
def embed_readable(clip: Clip, images: Sequence[Any], names: Sequence[str]) -> EmbeddedImages:
    """Unit vectors of pictures: PIL images, a ``datasets`` column, or ``PictureFiles``.

    A picture that is missing or cannot be read is left out and listed in ``skipped``. Raises
    :class:`InputError` where no picture can be read.
    """
    vectors: list[Tensor] = []
    read: list[str] = []
    skipped: list[tuple[str, str]] = []
    with bar("embedding images", len(names)) as progress:
        for start in range(0, len(names), AT_ONCE):
            some = []
            for row, name in enumerate(names[start : start + AT_ONCE], start):
                try:
                    some.append(as_rgb(images[row], name))
                    read.append(name)
                except Exception as error:  # whatever a broken picture leads to
                    skipped.append((name, str(error) or type(error).__name__))
                progress.advance()
            if some:
                vectors.append(clip.image_vectors(clip.pixels(some)).cpu())
    if not vectors:
        reason = skipped[0][1] if skipped else "none were given"
        raise InputError(f"none of {len(names)} images could be read ({reason})")
    return EmbeddedImages(torch.cat(vectors), read, skipped)
