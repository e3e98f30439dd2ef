"""Pictures that come within a request."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from geodapt.errors import InputError, reason_of
from geodapt.extras import require_pillow
from geodapt.vision.images import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
"""What browsers send; Pillow's readers of rarer formats are not for files of strangers."""
MOST_PIXELS = 16_000_000
"""Of a request; a few bytes may claim more, and be decoded to all of it."""


def pictures_in(coded: Sequence[str]) -> "list[Image]":
    """Pictures from base64, each alone or as a ``data:`` address.

    Raises :class:`InputError` for what is no picture, or one that is too large.
    """
    require_pillow()
    left, found = MOST_PIXELS, []
    for number, text in enumerate(coded):
        found.append(_picture(text, f"images.{number}", left))
        left -= found[-1].width * found[-1].height
    return found


def _picture(text: str, name: str, most: int) -> "Image":
    from PIL import Image as Pillow

    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise InputError(f"{name} is not base64; send a picture's file so") from None
    try:
        image = Pillow.open(BytesIO(content), formats=FORMATS)
    except Pillow.UnidentifiedImageError:
        raise InputError(f"{name} is none of {', '.join(FORMATS)}; send one of these") from None
    except Exception as error:  # whatever Pillow's readers raise over a broken file
        raise InputError(f"{name} cannot be read: {reason_of(error)}") from error
    with image:
        width, height = image.size
        if width * height > most:
            raise InputError(
                f"{name} has {width:,} x {height:,} pixels; a request's pictures may have "
                f"{MOST_PIXELS:,} together"
            )
        return open_picture(image, name)
