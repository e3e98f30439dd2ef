"""Pictures beside the texts of a dual encoder: files by name, and what a data set brings."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoProcessor

from geodapt.data.chains import ChainPictures
from geodapt.errors import InputError
from geodapt.extras import require_pillow
from geodapt.models import TextEncoder, as_input_errors, pretrained
from geodapt.paths import given
from geodapt.radial.encoders import is_dual
from geodapt.tinyclip.base import resolve_base
from geodapt.vision import Clip, EmbeddedImages, PictureFiles, embed_readable


def image_files(names: Sequence[str], folder: Path | str | None = None) -> ChainPictures:
    """Image files, each once: paths, or addresses whose last part is a file in ``folder``."""
    different = list(dict.fromkeys(names))
    if folder is None:
        return ChainPictures(PictureFiles(different), different)
    place = given(folder)
    return ChainPictures(PictureFiles([place / Path(name).name for name in different]), different)


def dual_clip(encoder: TextEncoder) -> Clip:
    """An encoder with its image processor.

    Raises :class:`InputError` where it embeds texts only.
    """
    require_pillow()
    if not is_dual(encoder):
        raise InputError(
            f"encoder '{encoder.name}' embeds texts only; images need a CLIP or a SigLIP"
        )
    with as_input_errors(encoder.name):
        processor = pretrained(AutoProcessor, resolve_base(encoder.name))
    return Clip(encoder.model, processor, encoder.name)


def embed_images(encoder: TextEncoder, pictures: ChainPictures) -> EmbeddedImages:
    """Unit vectors of pictures: of :func:`image_files`, or those that a data set brings.

    Pictures that are missing or unreadable are skipped and listed in the result. Raises
    :class:`InputError` where the encoder has no image tower, or no picture can be read.
    """
    return embed_readable(dual_clip(encoder), pictures.images, pictures.names)
